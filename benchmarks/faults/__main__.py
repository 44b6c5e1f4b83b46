"""What each fault costs a run: injects them into real ones, and prints the table of docs/faults.md.

    python -m benchmarks.faults --list
    python -m benchmarks.faults --output faults.jsonl
    python -m benchmarks.faults --output faults.jsonl --kinds runner 'env: raise' --trials 2 --seed 0
    python -m benchmarks.faults --table faults.jsonl --into docs/faults.md --check

Each trial is a line of the output file as soon as it is over; those that the file has already are not tried again, so
that a table can be made in parts. It takes hours as a whole. Linux; small file systems are mounted by root alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks.faults import processes, table, trials
from benchmarks.faults.flows import run_trials
from benchmarks.faults.kinds import Fault, all_faults
from benchmarks.faults.trials import Trial


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("faults.jsonl"), help="where trials are written, and known")
    parser.add_argument("--kinds", nargs="+", metavar="WORDS", help="faults whose name has one of these (default: all)")
    parser.add_argument("--trials", type=int, help="of each fault (default: as --list says)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--patience", type=float, default=150.0, metavar="S", help="until a run that hangs is given up")
    parser.add_argument("--settings", nargs="+", default=[], metavar="key=value", help="more settings of every run")
    parser.add_argument("--list", action="store_true", help="print the faults, and try none")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a file, and try none")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="with --table: put it into the page")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a trial is beyond the bounds")
    arguments = parser.parse_args(argv)
    if arguments.table is not None and not arguments.table.is_file():
        parser.error(f"--table {arguments.table}: there is no such file; --output names the one that trials go to")
    if arguments.into is not None and arguments.table is None:
        parser.error(f"--into {arguments.into}: it goes with --table FILE")
    return arguments


def main() -> int:
    """Tries faults, or prints what was tried."""
    arguments = parse(sys.argv[1:])
    chosen = [fault for fault in all_faults().values() if _is_chosen(fault, arguments.kinds)]
    if not chosen:
        print(f"--kinds {' '.join(arguments.kinds)}: no fault has such a name, see --list", file=sys.stderr)
        return 2
    if arguments.list:
        for fault in chosen:
            print(f"{fault.trials:3d} trials  {fault.name}")
        return 0
    if arguments.table is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
        _try(chosen, arguments)
    found = table.read(arguments.table or arguments.output)
    text = table.as_markdown(found)
    print(text)
    if arguments.into is not None:
        table.put_into(arguments.into, text)
    broken = table.broken_bounds(found) if arguments.check else []
    print("".join(f"{line}\n" for line in broken), end="", file=sys.stderr)
    return 1 if broken else 0


def _is_chosen(fault: Fault, words: list[str] | None) -> bool:
    return not words or any(word in fault.name for word in words)


def _try(chosen: list[Fault], arguments: argparse.Namespace) -> None:
    processes.adopt_orphans()
    known = {(trial.fault, trial.number) for trial in table.read(arguments.output)}
    for fault in chosen:
        numbers = [n for n in range(arguments.trials or fault.trials) if (fault.name, n) not in known]
        began = time.monotonic()

        def write(trial: Trial) -> None:
            table.append(arguments.output, trial)
            words = f"{trial.fault} {trial.number}: {trial.outcome}, {trial.seconds:.1f} s, in {trial.phase or '-'}"
            more = "; ".join(filter(None, [trial.detail, *trial.wrong[:2], *trial.leftovers, *trial.said[:1]]))
            print(f"{(time.monotonic() - began) / 60:5.1f} min  {words}  {more}", file=sys.stderr, flush=True)  # noqa: B023

        try:
            run_trials(fault, numbers, arguments.seed, arguments.settings, arguments.patience, write)
        except Exception as error:  # noqa: BLE001 (written down; a table of hours goes on with the other faults)
            done = {trial.number for trial in table.read(arguments.output) if trial.fault == fault.name}
            number = next((n for n in numbers if n not in done), numbers[-1])
            write(Trial(fault.name, number, trials.NOT_TRIED, detail=f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
