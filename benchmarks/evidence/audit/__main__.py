"""Runs what of the audit is missing, and prints its tables; see the package's docstring."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.evidence.audit import __doc__ as about
from benchmarks.evidence.audit.cells import (
    PAID,
    RATES,
    RESULTS,
    SIZES,
    Cell,
    Found,
    audit,
    cells,
    read,
    settings_of,
    write,
)
from benchmarks.evidence.audit.methods import BY_TURN, METHODS
from benchmarks.evidence.audit.worlds import WORLDS
from benchmarks.pages import put_between

PAGE = Path(__file__).parents[3] / "docs" / "evidence.md"
BEGIN, END = "<!-- tables of benchmarks.evidence.audit -->", "<!-- end of the tables -->"

_Results = Mapping[Cell, Mapping[str, Mapping[str, Found]]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.audit",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--groups", type=int, default=2_000, help="of each cell (default: 2,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="where they are kept")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--page", action="store_true", help="write the tables into docs/evidence.md")
    return parser.parse_args(argv)


def tables(found: _Results) -> Iterator[str]:
    """All tables, as lines of Markdown."""
    worlds = [world for world in WORLDS if world != PAID]
    for key, what in (
        ("angle", "Bias: degrees between the expected gradient and the true one, eight episodes a group"),
        ("episodes", "Episodes until the mean gradient is within 15° of the true one, eight a group"),
    ):
        for rate in (0.05, 0.2, 0.8):
            yield from _table(f"{what}; success rate {rate:.0%}", worlds, METHODS, key, found, rate)
    yield from _sizes(found, worlds)
    yield "**Where turns in between are paid: bias in degrees**"
    yield ""
    yield f"| method | {' | '.join(f'success {rate:.0%}' for rate in RATES)} |"
    yield f"|---|{'---|' * len(RATES)}"
    for method in BY_TURN:
        row = [_shown(found.get(Cell(PAID, rate, 8), {}).get(method, {}).get("angle")) for rate in RATES]
        yield f"| {method} | {' | '.join(row)} |"


def _table(
    title: str, worlds: list[str], methods: Mapping[str, object], key: str, found: _Results, rate: float
) -> Iterator[str]:
    yield f"**{title}**"
    yield ""
    yield f"| method | {' | '.join(worlds)} |"
    yield f"|---|{'---|' * len(worlds)}"
    for method in methods:
        row = [_shown(found.get(Cell(world, rate, 8), {}).get(method, {}).get(key)) for world in worlds]
        yield f"| {method} | {' | '.join(row)} |"
    yield ""


def _sizes(found: _Results, worlds: list[str]) -> Iterator[str]:
    yield "**Bias in degrees by the size of a group: 4, 8, 16 episodes; success rate 20%**"
    yield ""
    yield f"| method | {' | '.join(worlds)} |"
    yield f"|---|{'---|' * len(worlds)}"
    for method in METHODS:
        row = []
        for world in worlds:
            some = [found.get(Cell(world, 0.2, size), {}).get(method, {}).get("angle") for size in SIZES]
            row.append(", ".join("-" if one is None else f"{one.value:.1f}" for one in some))
        yield f"| {method} | {' | '.join(row)} |"
    yield ""


def _shown(one: Found | None) -> str:
    if one is None:
        return "-"
    if not np.isfinite(one.value):
        return "never"
    digits = ".1f" if one.value < 100 else ",.0f"
    high = "never" if not np.isfinite(one.high) else format(one.high, digits)
    return f"{one.value:{digits}} [{one.low:{digits}}, {high}]"


def main() -> None:
    """Run, keep, print."""
    arguments = parse()
    found = read(arguments.results)
    known = settings_of(arguments.results)
    if known is not None and known != (arguments.groups, arguments.seed):
        raise SystemExit(
            f"{arguments.results} was made with --groups {known[0]} --seed {known[1]}; say the same, or give --results "
            "another file."
        )
    wanted = [cell for cell in cells() if cell.world in arguments.worlds]
    missing = {cell: [name for name in cell.methods if name not in found.get(cell, {})] for cell in wanted}
    missing = {cell: names for cell, names in missing.items() if names}
    for number, (cell, names) in enumerate(missing.items(), start=1):
        started = time.monotonic()
        found[cell] = found.get(cell, {}) | audit(cell, names, arguments.groups, arguments.seed)
        write(found, arguments.groups, arguments.seed, arguments.results)
        print(f"{number} of {len(missing)}: {cell}, {time.monotonic() - started:.0f} s", flush=True)
    text = "\n".join(tables(found))
    print(text)
    if arguments.page:
        put_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    main()
