"""What an iteration takes with 1 to 1,024 engines, environment runners and learners each: simulated.

    python -m benchmarks.scaling --measure times.json
    python -m benchmarks.scaling --times times.json --check
    python -m benchmarks.scaling --times times.json
    python -m benchmarks.scaling --times times.json --into docs/scaling.md

A discrete-event simulation of the training loop, as the code has it. What each part takes is measured first, on the
quickstart's run, and wants a quiet machine; for a GPU cluster `gpu_cluster` says where its numbers are from. --check
runs the real thing with one engine and with two, writes it down in the same file beside what is simulated, and exits
with 1 if they are more than 15% apart. --into puts tables into the page and draws its picture.

Of engines and environment runners --most are simulated, turn by turn and step by step; above that number each stands
for several that are alike, and what the driver does for them is counted for all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.scaling import check, scenarios, table
from benchmarks.scaling.constants import Recorded

# Beside the page.
RESULTS = Path("figures") / "scaling.json"
TIMES = Path("figures") / "scaling_times.json"
PICTURE = Path("figures") / "scaling.py"


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure service times, and write them there")
    parser.add_argument("--times", type=Path, metavar="FILE", help="what --measure has written")
    parser.add_argument("--check", action="store_true", help="with --times: compare with real runs")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="with --times: write tables and picture")
    parser.add_argument("--iterations", type=int, default=10, help="of each real run (default: 10)")
    parser.add_argument(
        "--numbers", type=int, nargs="+", default=list(scenarios.NUMBERS), help="of engines, from one on"
    )
    parser.add_argument("--most", type=int, default=16, help="engines that are simulated one by one (default: 16)")
    arguments = parser.parse_args(argv)
    if (arguments.measure is None) == (arguments.times is None):
        parser.error("--measure FILE or --times FILE: one of them")
    if arguments.times is None and (arguments.check or arguments.into):
        parser.error("--check and --into go with --times FILE")
    if arguments.into is not None and not (arguments.into.parent / PICTURE).is_file():
        parser.error(f"--into {arguments.into}: beside it there is no {PICTURE}")
    if arguments.numbers[0] != 1 or min(arguments.numbers, default=0) < 1 or arguments.most < 1:
        parser.error("--numbers begins with 1, with which the others are compared, and none is below; nor is --most")
    return arguments


def main(argv: list[str]) -> int:
    """See the module's docstring."""
    arguments = parse(argv)
    if arguments.measure is not None:
        from benchmarks.scaling.measure import measure

        recorded = measure(arguments.iterations)
        recorded.write(arguments.measure)
        print(json.dumps(dataclasses.asdict(recorded.times), indent=2))
        return 0
    try:
        recorded = Recorded.read(arguments.times)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.check:
        return _check(recorded, arguments)
    rows = []
    for row in scenarios.results(recorded, arguments.numbers, arguments.most):
        rows.append(row)
        words = f"{row['scenario']}, {row['number']} each, staleness {row['max_staleness']}, {row['remedy']}"
        print(f"{words}: {table.seconds(row['seconds'])}", file=sys.stderr, flush=True)
    text = table.tables(recorded, rows)
    print(text)
    if arguments.into is not None:
        recorded.write(arguments.into.parent / TIMES)
        lines = ",\n".join(json.dumps(row) for row in rows)
        (arguments.into.parent / RESULTS).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        table.put_into(arguments.into, text)
        subprocess.run([sys.executable, str(arguments.into.parent / PICTURE)], check=True)
    return 0


def _check(recorded: Recorded, arguments: Any) -> int:
    rows: list[dict[str, float]] = []
    for row in check.compare(recorded, arguments.iterations):
        rows.append(row)
        print(json.dumps(row), flush=True)
    dataclasses.replace(recorded, checked=rows).write(arguments.times)
    if check.is_within(rows):
        return 0
    print(f"Simulated and measured are more than {check.BOUND:.0%} apart.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
