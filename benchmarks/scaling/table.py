"""The tables of docs/scaling.md, of what was simulated and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import put_between
from benchmarks.scaling import gpu_cluster
from benchmarks.scaling.check import BOUND
from benchmarks.scaling.constants import Recorded
from benchmarks.scaling.scenarios import GPUS, GROUPS, REMEDIED, REMEDIES, STALENESS, THIS
from benchmarks.scaling.simulation import PARTS

BEGIN = "<!-- simulated: python -m benchmarks.scaling --times FILE --into docs/scaling.md -->"
END = "<!-- end of what is simulated -->"
_AS_IT_IS = REMEDIES[0][0]
_SLOWER = 1.5  # times as long an iteration as with one engine: then something is saturated

Row = Mapping[str, Any]


def tables(recorded: Recorded, rows: Sequence[Row]) -> str:
    """All of them, as Markdown."""
    parts = [_checked(recorded)]
    for name in (THIS, GPUS):
        mine = [row for row in rows if row["scenario"] == name]
        plain = [row for row in mine if row["remedy"] == _AS_IT_IS]
        parts += [
            f"### {name[0].upper()}{name[1:]}",
            _iterations(plain),
            " ".join(saturation(plain, max_staleness) for max_staleness in (0, 1)),
            *(f"With `max_staleness={s}`:\n\n{_shares(plain, s)}" for s in (0, 1)),
            _remedies(mine),
        ]
    parts.append(f"### Service times\n\n{_constants(recorded)}")
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def _checked(recorded: Recorded) -> str:
    if not recorded.checked:
        return f"On {recorded.machine}. It has not been compared with real runs: `--check` does."
    body = [
        [
            f"{row['engines']:.0f}",
            f"{row['max_staleness']:.0f}",
            f"{row['measured_s']:.2f} s",
            f"{row['predicted_s']:.2f} s",
            f"{100 * row['off']:+.0f}%",
        ]
        for row in recorded.checked
    ]
    headings = ["engines", "`max_staleness`", "measured", "simulated", ""]
    return f"The quickstart's iteration on {recorded.machine}, at most {BOUND:.0%} apart:\n\n{_table(headings, body)}"


def _iterations(rows: Sequence[Row]) -> str:
    by = {(row["number"], row["max_staleness"]): row for row in rows}
    body = [
        [
            f"{number:,}",
            *(seconds(by[number, s]["seconds"]) for s in STALENESS),
            *(f"{by[number, s]['turns_per_s']:,.0f}" for s in (0, 1)),
        ]
        for number in _numbers(rows)
    ]
    headings = ["engines, runners, learners each", *(f"staleness {s}" for s in STALENESS), "turns/s, 0", "turns/s, 1"]
    return f"Time of an iteration, {GROUPS} groups for each engine:\n\n{_table(headings, body)}"


def _shares(rows: Sequence[Row], max_staleness: int) -> str:
    body = [
        [
            f"{row['number']:,}",
            *(seconds(row["phases"][phase]) for phase in ("sampling", "learning", "transfer")),
            *(f"{row['busy'][part]:.0%}" for part in PARTS),
            *([f"{row['staleness_mean']:.2f}, {row['staleness_max']}"] if max_staleness else []),
        ]
        for row in rows
        if row["max_staleness"] == max_staleness
    ]
    headings = ["each", "waiting for groups", "learning", "handing out weights", *(f"{part} busy" for part in PARTS)]
    return _table([*headings, *(["staleness, mean and most"] if max_staleness else [])], body)


def saturation(rows: Sequence[Row], max_staleness: int) -> str:
    """From what number on an iteration takes longer than with one engine, and what has grown most."""
    mine = [row for row in rows if row["max_staleness"] == max_staleness]
    alone = mine[0]
    said = f"With `max_staleness={max_staleness}`"
    for row in mine[1:]:
        if row["seconds"] >= _SLOWER * alone["seconds"]:
            part = max(PARTS, key=lambda name: _busy_s(row, name) - _busy_s(alone, name))
            times = row["seconds"] / alone["seconds"]
            return (
                f"{said} an iteration takes {times:.1f} times as long with {row['number']:,} as with one, and what has "
                f"more to do is first of all {_WORDS[part]}."
            )
    return f"{said} nothing is saturated up to {mine[-1]['number']:,}."


_WORDS = {
    "engines": "the engines",
    "runners": "the environment runners",
    "learners": "the learners",
    "transfer": "the way of the weights",
    "driver": "the driver",
    "store": "the object store of the driver's node",
}


def _busy_s(row: Row, part: str) -> float:
    return float(row["busy"][part] * row["seconds"])


def _remedies(rows: Sequence[Row]) -> str:
    by = {(row["remedy"], row["number"], row["max_staleness"]): row for row in rows}
    places = [place for place in REMEDIED if (_AS_IT_IS, *place) in by]
    if not places:
        return ""
    body = [
        [words if not index else f"+ {words}", *(_with_busiest(by[words, *place]) for place in places)]
        for index, (words, _) in enumerate(REMEDIES)
    ]
    headings = ["what is done about it", *(f"{number:,} each, staleness {s}" for number, s in places)]
    return f"An iteration, and what is busy most:\n\n{_table(headings, body)}"


def _with_busiest(row: Row) -> str:
    return f"{seconds(row['seconds'])}, {row['busiest']} {row['busy'][row['busiest']]:.0%}"


def _constants(recorded: Recorded) -> str:
    here, there = _flat(recorded.times), _flat(gpu_cluster.gpu_times(recorded.times))
    sources = {name: source for name, (_, source) in gpu_cluster.NUMBERS.items()}
    body = []
    for name, value in here.items():
        source = sources.get(name, "" if there[name] == value else "a device of its own, and cores for everybody")
        body.append([f"`{name}`", number(value), number(there[name]) if source else "the same", source])
    return _table(["", THIS, GPUS, "where the latter is from"], body)


def _flat(times: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for part, value in dataclasses.asdict(times).items():
        if isinstance(value, dict):
            flat |= {f"{part}.{name}": each for name, each in value.items()}
        else:
            flat[part] = value
    return flat


def seconds(value: float) -> str:
    """Such as "83 s" or "2.14 s"."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def number(value: Any) -> str:
    """A constant."""
    if isinstance(value, (list, tuple)):
        return ", ".join(number(each) for each in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _numbers(rows: Sequence[Row]) -> list[int]:
    return sorted({row["number"] for row in rows})


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def put_into(page: Path, text: str) -> None:
    """Replaces the tables of a page."""
    put_between(page, BEGIN, END, text)
