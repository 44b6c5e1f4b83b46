"""Tables of rows: a Markdown table a part, its columns as the rows name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: In the file alone.
_LEFT_OUT = ("part", "traceback", "all_seconds")
_SHOWN = 5  # of a list
_LONGEST = 160  # characters of an error


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """All parts of some rows, in their order; the facts of the machine first."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(str(row["part"]), []).append(row)
    return "\n".join(_facts(group[0]) if name == "machine" else _part(name, group) for name, group in parts.items())


def _facts(row: Mapping[str, Any]) -> str:
    lines = [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in row.items() if key != "part"]
    return "\n".join(["| machine | |", "|---|---|", *lines]) + "\n"


def _part(name: str, rows: list[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in (*_LEFT_OUT, "error")))
    keys += ["error"] * any("error" in row for row in rows)
    keys.sort(key=lambda key: (key == "seconds", key == "error"))
    headings = [name if key == "case" else key.replace("_", " ") for key in keys]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(keys)]
    lines += [f"| {' | '.join(_cell(row.get(key)) for key in keys)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """A value as one reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return "; ".join(f"{share:.0%} {name}" for name, share in value[:_SHOWN])
    words = " ".join(str(value).split()).replace("|", "/")
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."
