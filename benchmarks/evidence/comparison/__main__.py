"""Runs what of the comparison is missing, or draws its tables; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evidence.comparison import __doc__ as about
from benchmarks.evidence.comparison.cells import RESULTS, STAGES, TUNED_IN, Cell, append, cells, choose, file_of, read
from benchmarks.evidence.comparison.tables import tables
from benchmarks.evidence.comparison.worlds import WORLDS
from benchmarks.pages import put_between

PAGE = Path(__file__).parents[3] / "docs" / "evidence.md"
BEGIN, END = "<!-- tables of benchmarks.evidence.comparison -->", "<!-- end of the tables of trainings -->"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.comparison",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", choices=STAGES, help="what to run; tuning first, since the others use it")
    parser.add_argument(
        "--world", choices=list(WORLDS), default=TUNED_IN, help=f"of the main stage (default: {TUNED_IN})"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of these alone")
    parser.add_argument("--minutes", type=float, default=55, help="after which no training begins (default: 55)")
    parser.add_argument("--lanes", type=int, default=2, help="trainings at a time, each on its own cores (default: 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where they are kept")
    parser.add_argument("--turns", type=int, help="of a training, to try this out; with --results elsewhere")
    parser.add_argument("--page", action="store_true", help="draw the tables into docs/evidence.md, and run nothing")
    arguments = parser.parse_args(argv)
    if arguments.stage is None and not arguments.page:
        parser.error("say --stage tuning, main or ablations, or --page.")
    if arguments.turns is not None and arguments.results == RESULTS:
        parser.error("--turns: shorter trainings are others; say --results FOLDER to keep them apart.")
    return arguments


class Lanes:
    """Trains cells, several at a time, until none is left or the time is over.

    Attributes:
        failed: the cells whose training did not come to its end, with what it said.
    """

    def __init__(self, todo: Sequence[Cell], path: Path, given: Mapping[str, Any], minutes: float) -> None:
        """Say what to do.

        Args:
            todo: cells to train.
            path: the file of their records.
            given: to every training beside its cell: `start`, and `turns` if not the world's.
            minutes: after which no training begins.
        """
        self.failed: list[str] = []
        self._todo, self._path, self._given = deque(todo), path, given
        self._total, self._ends = len(todo), time.monotonic() + 60 * minutes
        self._lock = threading.Lock()

    def run(self, lanes: int) -> None:
        """Returns when all that have begun are over; after Ctrl-C, which ends them, none begins."""
        threads = [threading.Thread(target=self._lane, args=(cores,)) for cores in shares(lanes)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._ends = 0.0
            raise

    def _lane(self, cores: Collection[int]) -> None:
        # Of this thread, and so of all that a training starts.
        os.sched_setaffinity(0, cores)
        while time.monotonic() < self._ends:
            with self._lock:
                if not self._todo:
                    return
                cell = self._todo.popleft()
            self._train(cell)

    def _train(self, cell: Cell) -> None:
        began = time.monotonic()
        given = json.dumps(asdict(cell) | dict(self._given))
        command = [sys.executable, "-m", "benchmarks.evidence.comparison.train", given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        minutes = (time.monotonic() - began) / 60
        with self._lock:
            if done.returncode != 0:
                self.failed.append(f"{cell}: exit code {done.returncode}\n{done.stderr[-3000:]}")
                print(f"{cell}: failed after {minutes:.1f} min", flush=True)
                return
            record = json.loads(done.stdout.splitlines()[-1])
            append(self._path, record)
            left = f"{len(self._todo)} of {self._total} to go"
            print(f"{cell}: {100 * record['curve'][-1][1]:.1f}% in {minutes:.1f} min; {left}", flush=True)


def shares(lanes: int) -> list[list[int]]:
    """The cores of each lane, of those that this process may use; one for several lanes where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    return [cores[lane::lanes] or [cores[lane % len(cores)]] for lane in range(lanes)]


def make_start(world: str) -> str:
    """The policy that the trainings of a world start from. It is made once, in a process of its own, and kept."""
    code = f"from benchmarks.evidence.comparison.worlds import WORLDS; print(WORLDS[{world!r}].start())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"The policy that {world} starts from could not be made:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


def run(arguments: argparse.Namespace) -> None:
    """Trains what is missing of a stage.

    Raises:
        SystemExit: the tuning is not there yet, or a training failed.
    """
    chosen = choose(list(read(file_of("tuning", results=arguments.results)).values()))
    path = file_of(arguments.stage, arguments.world, arguments.results)
    wanted = [
        cell
        for cell in cells(arguments.stage, arguments.world, chosen)
        if not arguments.methods or cell.method in arguments.methods
    ]
    if not wanted:
        raise SystemExit(
            f"Nothing to run for {arguments.stage}: the tuning has chosen for {', '.join(chosen) or 'none'}."
        )
    known = read(path)
    todo = [cell for cell in wanted if cell.key not in known]
    if todo:
        begun = time.monotonic()
        start = make_start(todo[0].world)
        minutes = arguments.minutes - (time.monotonic() - begun) / 60
        print(f"{len(todo)} of {len(wanted)} trainings to go", flush=True)
        lanes = Lanes(todo, path, {"start": start, "turns": arguments.turns}, minutes)
        lanes.run(arguments.lanes)
        if lanes.failed:
            raise SystemExit("\n\n".join(lanes.failed))


def main() -> None:
    """Run or draw."""
    arguments = parse()
    if arguments.page:
        text = "\n".join(tables(arguments.results))
        put_between(PAGE, BEGIN, END, text)
        print(text)
        return
    run(arguments)


if __name__ == "__main__":
    main()
