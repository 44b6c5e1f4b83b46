"""Hours of training with a random fault a minute: does anything grow, and does the agent learn as without them?

    python -m benchmarks.soak --minutes 120 --output soak.jsonl --undisturbed
    python -m benchmarks.soak --report soak.jsonl

The faults are SIGKILL and SIGSTOP of a runner, the engine's actor, vLLM's EngineCore and the learner, drawn by lot.
Every ten seconds memory (PSS: shared pages counted once), open files and threads of each kind of process are written
down, and what lies in /dev/shm, the temporary folder and the run's folder. The report has their slopes: least squares
over means of a minute, in which all parts were there, after the warm-up. With --undisturbed the same training runs for
as many iterations without faults, to compare the learning curves; else the later half is compared with the earlier.
Exit status 1: something grows, the curve is harmed, or the run ended or hung. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import psutil

from benchmarks.faults import processes
from benchmarks.faults.training import START_S, Stuck, Training
from benchmarks.faults.trials import GAUGES
from benchmarks.soak_report import print_report

CONFIG = str(Path(__file__).with_name("soak_config.py"))
PARTS = ("runner", "engine", "EngineCore", "learner")
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)
_SAMPLE_S = 10.0
_HANG_S = 240.0  # without an iteration: a hang is found after a minute, and an engine's start-up takes another
# Ray's GCS keeps a record of the last tasks, 100,000 by default: it would grow for half an hour, and then no more.
_RAY = {"RAY_task_events_max_num_task_in_gcs": "5000"}
Write = Callable[..., None]


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="of disturbed training")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds from fault to fault")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="that are struck")
    parser.add_argument("--signals", nargs="+", choices=[s.name for s in SIGNALS], default=[s.name for s in SIGNALS])
    parser.add_argument("--seed", type=int, default=0, help="of the faults and the training")
    parser.add_argument("--settings", nargs="+", default=[], metavar="key=value", help="more settings of the run")
    parser.add_argument("--undisturbed", action="store_true", help="train once more without faults, to compare")
    parser.add_argument("--output", type=Path, default=Path("soak.jsonl"), help="a new file for what is seen")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the report of a file, and train nothing")
    arguments = parser.parse_args(argv)
    if arguments.report is None and arguments.output.exists():
        parser.error(f"--output {arguments.output}: it is there already; name a new file, or print it with --report")
    return arguments


def main() -> int:
    """Trains and reports."""
    arguments = parse(sys.argv[1:])
    if arguments.report is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
        processes.adopt_orphans()
        with arguments.output.open("w", encoding="utf-8") as file:
            iterations = disturbed(arguments, writer(file))
            if arguments.undisturbed:
                undisturbed(arguments, iterations, writer(file))
    rows = [json.loads(line) for line in (arguments.report or arguments.output).read_text().splitlines()]
    return print_report(rows)


def writer(file: TextIO) -> Write:
    """Writes rows of a kind, with the seconds since now."""
    began = time.monotonic()

    def write(kind: str, **values: Any) -> None:
        file.write(json.dumps({"row": kind, "s": round(time.monotonic() - began, 2)} | values) + "\n")
        file.flush()

    return write


@contextlib.contextmanager
def trained(arguments: argparse.Namespace) -> Iterator[Training]:
    """A training that has begun."""
    with Training([CONFIG, f"seed={arguments.seed}", *arguments.settings], environment=_RAY) as training:
        training.start("--checkpoint-every", "5")
        training.wait_for_iterations(2, START_S)
        yield training


def disturbed(arguments: argparse.Namespace, write: Write) -> int:
    """The training with faults; returns its iterations."""
    rng = random.Random(arguments.seed)
    with trained(arguments) as training:
        present = [part for part in arguments.parts if training.alive(part)]  # an engine without vLLM has no EngineCore
        whole = {part: len(training.alive(part)) for part in present}
        write("start", minutes=arguments.minutes, parts=whole)
        began = sampled = struck = time.monotonic()
        wait = arguments.every
        seen = 0
        while (now := time.monotonic()) - began < arguments.minutes * 60:
            training.poll()
            if training.last() > seen:
                seen = training.last()
            if training.code is not None:
                write("end", reason=f"the command ended with status {training.code}: {training.said()[-3:]}")
                break
            if now - max(training.over.values()) > _HANG_S:
                phase = training.phase()
                write("end", reason=f"no iteration for {_HANG_S:.0f} s, in the phase {phase!r}: {training.said()[-3:]}")
                break
            if now - sampled >= _SAMPLE_S:
                sampled = now
                write("sample", iteration=seen, **sample(training))
            if now - struck >= wait:
                struck, wait = now, arguments.every * rng.uniform(0.75, 1.25)
                part, sign = rng.choice(present), signal.Signals[rng.choice(arguments.signals)]
                strike(training, part, sign, rng, write)
            time.sleep(0.25)
        return finish(training, "curve", write)


def strike(training: Training, part: str, sign: signal.Signals, rng: random.Random, write: Write) -> None:
    """Signals one process of a part; none if the last fault has left none."""
    victims = training.alive(part)
    if victims:
        processes.send([rng.choice(victims)], sign)
    write("fault", part=part, signal=sign.name, iteration=training.last() + 1, struck=bool(victims))


def finish(training: Training, kind: str, write: Write) -> int:
    """Ends the training as a user does, and writes its curve; returns its iterations."""
    if training.code is None:
        training.driver_process.send_signal(signal.SIGTERM)
        ended = training.wait_for_end(120.0)
        write("stopped", within_s=120.0 if ended else None, leftovers=training.leftovers() if ended else [])
    keys = ("iteration", "env_runners/num_successes", "env_runners/num_episodes", "num_groups_dropped")
    rows = [row for row in training.metrics() if row["iteration"]]
    write(kind, iterations=[[row.get(key) for key in keys] for row in rows])
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(
            {
                key: value
                for key, value in row.items()
                if key.startswith("fault_tolerance/") and key not in GAUGES and value
            }
        )
    write("counted", **counts)
    return len(rows)


def undisturbed(arguments: argparse.Namespace, iterations: int, write: Write) -> None:
    """The same training without faults, for as many iterations."""
    with trained(arguments) as training:
        with contextlib.suppress(Stuck):
            training.wait(lambda: training.last() >= iterations, arguments.minutes * 60, f"{iterations} iterations")
        finish(training, "undisturbed", write)


def sample(training: Training) -> dict[str, Any]:
    """Memory, files and threads by kind of process, and bytes in folders."""
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: {"n": 0, "mib": 0.0, "files": 0, "threads": 0})
    for process in processes.living():
        with contextlib.suppress(psutil.Error, OSError):
            kind = kinds[processes.part_of(process)]
            values = {"n": 1, "mib": pss_mib(process), "files": process.num_fds(), "threads": process.num_threads()}
            for key, value in values.items():
                kind[key] += value
    folders = {"run": training.run, "temporary": training.temporary}
    if training.shared_memory is not None:
        folders["/dev/shm"] = training.shared_memory
    return {"kinds": kinds, "folders": {name: size_mib(folder) for name, folder in folders.items()}}


def pss_mib(process: psutil.Process) -> float:
    """Memory of a process, a page that n processes share counted as 1/n."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def size_mib(folder: Path) -> float:
    """Of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it went while we looked
            total += path.lstat().st_size if not path.is_symlink() else 0
    return total / 2**20


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
