"""Tables of rows: a Markdown table for rows of a part that have the same figures, its columns as the rows name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: In the file alone.
_LEFT_OUT = ("part", "traceback", "all_seconds", "adapted")
_NO_FIGURES = (*_LEFT_OUT, "case", "seconds", "error")
_SHOWN = 5  # of a list
_LONGEST = 160  # characters of an error


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """All parts of some rows, in their order; the facts of the machine first."""
    rows = list(rows)
    tables = [_facts(group[0]) if group[0]["part"] == "machine" else _part(group) for group in _groups(rows)]
    adapted = dict.fromkeys(f"Adapted to this PyTorch: {row['adapted']}.\n" for row in rows if row.get("adapted"))
    return "\n".join([*tables, *adapted])


def _groups(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each table: of one part, with the same figures. A row that failed has none, and joins the others."""
    groups: list[list[Mapping[str, Any]]] = []
    for row in rows:
        last = groups[-1] if groups and groups[-1][0]["part"] == row["part"] else None
        if last is not None and (_figures(*last) == _figures(row) or () in (_figures(*last), _figures(row))):
            last.append(row)
        else:
            groups.append([row])
    return groups


def _figures(*rows: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what is measured."""
    return tuple(dict.fromkeys(key for row in rows for key in row if key not in _NO_FIGURES))


def line(row: Mapping[str, Any]) -> str:
    """A row as it comes, on one line."""
    figures = [f"{key} {in_words(value)}" for key, value in row.items() if key not in (*_LEFT_OUT, "case")]
    return f"{row['part']}: {row['case']}: {', '.join(figures)}"


def _facts(row: Mapping[str, Any]) -> str:
    lines = [f"| {key.replace('_', ' ')} | {in_words(value)} |" for key, value in row.items() if key != "part"]
    return "\n".join(["| machine | |", "|---|---|", *lines]) + "\n"


def _part(rows: list[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in _LEFT_OUT))
    keys.sort(key=lambda key: (key == "error", key == "seconds"))
    headings = [str(rows[0]["part"]) if key == "case" else key.replace("_", " ") for key in keys]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(keys)]
    lines += [f"| {' | '.join(in_words(row.get(key)) for key in keys)} |" for row in rows]
    return "\n".join(lines) + "\n"


def in_words(value: Any) -> str:
    """A value as one reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if 0.99 < abs(value) < 1.01:
            return f"{value:.6g}"  # a cosine, say
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return "; ".join(f"{share:.0%} {name}" for name, share in value[:_SHOWN])
    words = " ".join(str(value).split()).replace("|", "/")
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."
