"""`proxmo diagnose`: what is wrong with a run that does not learn, in words.

    proxmo diagnose runs/quickstart-20260102-030405
    proxmo diagnose runs/quickstart-20260102-030405 --iteration 40

It looks at the last ten iterations of the run, which may still be going on, or at those up to the one that is named.
The exit status is 1 if something is off, 2 if the run cannot be read. docs/diagnosis.md has what it looks for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxmo_rllib.diagnosis import RECENT, diagnose
from proxmo_rllib.json_lines import read_object
from proxmo_rllib.metrics_file import metrics_of, newest_of_each_iteration, read_metrics, trials_in


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo diagnose", description="Say what is wrong with a run, in words.")
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a run or of a sweep's trial, or its file")
    parser.add_argument("--iteration", type=int, help="look at those up to it (default: the last)")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    return parser.parse_args(argv)


def rows_of(run: Path, last: int | None) -> Iterator[dict[str, Any]]:
    """The numbers of a run's iterations, oldest first.

    Args:
        run: its folder, a trial's of a sweep, or the file of its metrics.
        last: iteration after which none is wanted.

    Raises:
        ValueError: there are none, or a line is damaged.
    """
    file = metrics_of(run)
    if not file.is_file():
        what = trials_in(run) or f"{file}: there is no such file. Name the folder of a run, which `proxmo train` says."
        raise ValueError(what)
    rows = read_metrics(file)
    for row in newest_of_each_iteration(row for row in rows if last is None or row.iteration <= last):
        for key, value in row.numbers.items():
            if not isinstance(value, int | float | None):
                raise ValueError(f"{row.where} is damaged: {key} is {value!r:.80}")
        yield dict(row.numbers)


def read_settings(run: Path) -> dict[str, Any]:
    """Those of the run, or, as Tune wrote them, of the trial; none where nothing wrote them."""
    folder = run.parent if run.is_file() else run
    files = (file for name in ("config.json", "params.json") if (file := folder / name).is_file())
    return next((read_object(file.read_bytes(), file) for file in files), {})


def main(argv: list[str]) -> int:
    """Say what is off; see the module's docstring."""
    arguments = parse(argv)
    try:
        rows = list(rows_of(arguments.run, arguments.iteration))
        findings = diagnose(rows, read_settings(arguments.run))
    except ValueError as error:
        print(f"proxmo diagnose: {error}", file=sys.stderr)
        return 2
    played = [int(row["iteration"]) for row in rows if row["iteration"]]
    if not played:
        print(f"proxmo diagnose: {arguments.run}: no iteration has ended yet", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([{"cause": f.cause, "seen": f.seen, "remedy": f.remedy} for f in findings], indent=2))
        return bool(findings)
    recent = played[-RECENT:]
    print(f"iterations {recent[0]} to {recent[-1]}:")
    for finding in findings:
        print(f"\n{finding.cause}\n  {finding.seen}.\n  {finding.remedy}.")
    if not findings:
        print("nothing is off")
    return bool(findings)
