"""The tables of docs/evidence.md, drawn from the trainings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.evidence.comparison.cells import RESULTS, SEEDS, choose, file_of, read
from benchmarks.evidence.comparison.methods import ABLATIONS, GRID, METHODS, PROXMO, Tuning
from benchmarks.evidence.comparison.statistics import Difference, Estimate, Record, differences, final, mean, turns_to
from benchmarks.evidence.comparison.worlds import WORLDS


def tables(results: Path = RESULTS) -> Iterator[str]:
    """All that have trainings, as lines of Markdown."""
    files = [file_of("tuning", results=results), *(file_of("main", world, results) for world in WORLDS)]
    if not any(file.is_file() for file in files):
        yield "No training is done yet."
        return
    records = list(read(file_of("tuning", results=results)).values())
    if records:
        yield from _tuning(records)
    for world in WORLDS:
        by_method = by_method_and_seed(read(file_of("main", world, results)).values())
        if by_method:
            yield from _main(world, by_method)
    ablations = by_method_and_seed(read(file_of("ablations", results=results)).values())
    whole = by_method_and_seed(read(file_of("main", "rooms_three", results)).values())
    if ablations and PROXMO in whole:
        yield from _ablations(ablations, whole[PROXMO])


def by_method_and_seed(records: Any) -> dict[str, dict[int, Record]]:
    """Records in the order of the methods."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        found.setdefault(record["method"], {})[record["seed"]] = record
    order = [*METHODS, *ABLATIONS]
    return {method: found[method] for method in order if method in found}


def _tuning(records: Sequence[Record]) -> Iterator[str]:
    chosen = choose(records)
    yield "**Tuning: area under the panel's curve, %, by learning rate (times the world's) and entropy; chosen: bold**"
    yield ""
    yield f"| method | {' | '.join(f'{t.lr_factor:g}, {t.entropy_coef:g}' for t in GRID)} |"
    yield f"|---|{'---|' * len(GRID)}"
    for method in METHODS:
        row = []
        for tuning in GRID:
            areas = [r["area"] for r in records if r["method"] == method and Tuning(**r["tuning"]) == tuning]
            text = f"{100 * sum(areas) / len(areas):.1f}" if areas else "-"
            row.append(f"**{text}**" if chosen.get(method) == tuning else text)
        yield f"| {method} | {' | '.join(row)} |"
    yield ""


def _main(world: str, by_method: Mapping[str, Mapping[int, Record]]) -> Iterator[str]:
    about, some = WORLDS[world], next(iter(next(iter(by_method.values())).values()))
    counts = sorted({len(records) for records in by_method.values()})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    short = "" if counts[0] == len(SEEDS[world]) else f" of {len(SEEDS[world])}"
    start = 100 * some["curve"][0][1]
    yield f"**{about.title}: after {about.turns:,} turns; {seeds}{short} seeds; at the start {start:.1f}%**"
    yield ""
    compared = "success on the panel, % | against ProxMO, points | by bootstrap | p | p, Holm | area, %"
    yield f"| method | {compared} | turns to 80% | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    against = differences(by_method, PROXMO) if PROXMO in by_method else {}
    for method, records in by_method.items():
        rows = list(records.values())
        parts = [_percent(mean([final(row) for row in rows])), *_difference(against.get(method))]
        parts += [_percent(mean([row["area"] for row in rows])), _turns(rows), f"{_minutes(rows):.1f}"]
        yield f"| {method} | {' | '.join(parts)} |"
    yield ""


def _ablations(by_method: Mapping[str, Mapping[int, Record]], whole: Mapping[int, Record]) -> Iterator[str]:
    seeds = {seed for records in by_method.values() for seed in records}
    together = {PROXMO: {seed: whole[seed] for seed in sorted(seeds) if seed in whole}} | dict(by_method)
    yield f"**Ablations: ProxMO with one thing changed, {WORLDS['rooms_three'].title}; {len(seeds)} seeds**"
    yield ""
    yield "| changed | success on the panel, % | against ProxMO, points | by bootstrap | p | p, Holm | area, % |"
    yield "|---|---|---|---|---|---|---|"
    against = differences(together, PROXMO)
    for method, records in together.items():
        rows = list(records.values())
        parts = [_percent(mean([final(row) for row in rows])), *_difference(against.get(method))]
        parts.append(_percent(mean([row["area"] for row in rows])))
        yield f"| {'nothing' if method == PROXMO else method} | {' | '.join(parts)} |"
    yield ""


def _percent(found: Estimate) -> str:
    low = f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if math.isfinite(found.low) else ""
    return f"{100 * found.value:.1f}{low}"


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["", "", "", ""]
    points = f"{100 * found.mean.value:+.1f} [{100 * found.mean.low:+.1f}, {100 * found.mean.high:+.1f}]"
    drawn = f"[{100 * found.drawn[0]:+.1f}, {100 * found.drawn[1]:+.1f}]"
    return [points, drawn, _p(found.p), _p(found.p_corrected)]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _turns(rows: Sequence[Record]) -> str:
    """The median, and how many arrived where not all did."""
    found = [turns_to(row) for row in rows]
    arrived = sum(map(math.isfinite, found))
    middle = median(found)
    text = f"{middle:,.0f}" if math.isfinite(middle) else "not"
    return text if arrived == len(found) else f"{text} ({arrived} of {len(found)})"


def _minutes(rows: Sequence[Record]) -> float:
    return float(median(row["minutes"]["all"] for row in rows))
