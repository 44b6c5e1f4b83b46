"""What one GPU does with the learner, the transformers engine and a whole run. Prepared; it has not run on a GPU yet.

    python -m benchmarks.gpu --output gpu.jsonl --minutes 10
    python -m benchmarks.gpu --output gpu.jsonl --parts learner-1.5b gradient
    python -m benchmarks.gpu --output tiny.jsonl --tiny
    python -m benchmarks.gpu --report gpu.jsonl

One command for a machine that is there for a quarter of an hour. The parts go in the order of their value; each case
has a limit of its own, and what fails or does not fit says so in its row. A row is in the file as soon as it is there.
Where there is no GPU, or with --tiny, shapes are tiny: that all of it works can be tried on a CPU in a few minutes.

Models have random weights in the shape of Qwen2.5, and nothing is downloaded. Figures: `operations` says what is
counted; the peak is a bfloat16 matrix product measured in the same process.

A machine without a network needs, beside PyTorch for CUDA (2.13; 2.11 and 2.12 are adapted to, see `older_torch`),
transformers, peft, safetensors, numpy, scipy, pandas, pyarrow, psutil, regex and rich, a folder with Ray, gymnasium,
farama-notifications, dm-tree, lz4, tensorboardX, ormsgpack, jsonschema with what it needs and, for the quickstart,
alfworld, installed by pip for its Python (--target, --no-deps, --platform), named in PYTHONPATH. Of Ray the folders
`ray/jars`, `ray/dashboard/client` and `ray/cpp` may be deleted before: 32 MB are left of it as a .tar.xz. The whole
command is in docs/learner.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS, TINY_FACTOR, Part
from benchmarks.gpu.supervision import Worker, command_of, measure_all
from benchmarks.gpu.table import line, table


def measure_parts(parts: Sequence[Part], tiny: bool, minutes: float) -> Iterator[dict[str, Any]]:
    """The rows of all parts, as they come.

    Args:
        parts: in their order.
        tiny: whether shapes are to be.
        minutes: for all of it.
    """
    deadline = time.monotonic() + 60 * minutes
    # On a GPU's machine there are processors enough for the next process to start while one measures.
    ahead: dict[str, Worker] = {}

    def start(part: Part) -> Worker:
        return ahead.pop(part.name, None) or Worker(command_of(part.module, tiny))

    try:
        for place, part in enumerate(parts):
            if not tiny:
                for soon in parts[place : place + 2]:
                    ahead[soon.name] = start(soon)
            limit = part.seconds * (TINY_FACTOR if tiny else 1)
            rows = measure_all(part.cases, lambda part=part: start(part), limit, lambda: deadline - time.monotonic())
            for row in rows:
                yield {"part": part.name} | row
    finally:
        for worker in ahead.values():
            worker.end()


def report(file: Path) -> str:
    """The tables of a file of rows; of a run that was killed, what it had."""
    return table(json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.endswith("}"))


def main() -> int:
    """See the module's docstring."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="rows, as JSON lines; what is there is kept")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="in the order given")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it (default: 10)")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; so it is where there is no GPU")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the tables of a file, and measure nothing")
    arguments = parser.parse_args()
    if arguments.report is not None:
        print(report(arguments.report))
        return 0
    if arguments.output is None:
        parser.error("--output says where the rows go")

    from benchmarks.gpu import device

    tiny = arguments.tiny or not device.is_gpu()
    chosen = [part for name in arguments.parts for part in PARTS if part.name == name]
    machine = {
        "part": "machine",
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "tiny": tiny,
        **device.facts(),
    }
    rows = [machine]
    # Ended from outside, it ends its processes; the rows are in the file.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with arguments.output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(machine) + "\n")
        for row in measure_parts(chosen, tiny, arguments.minutes):
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(line(row), flush=True)
    print(f"\n{table(rows)}")
    return 0 if all("error" not in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
