"""Tables that a script writes into a page of the docs, between two lines that mark their place."""

from __future__ import annotations

from pathlib import Path


def put_between(page: Path, begin: str, end: str, tables: str) -> None:
    """Replaces what stands between two lines of a page.

    Raises:
        ValueError: the page has no such lines, or has them twice.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: a table goes between the lines {begin} and {end}, each of them once.")
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{begin}\n\n{tables}\n\n{end}{tail}", encoding="utf-8")
