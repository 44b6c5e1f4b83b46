"""Files of data that others have made: where a path leads, and what of them could not be used."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def data_path(name: str, given: str | os.PathLike[str]) -> Path:
    """The path that a setting names, with ~ and $VARIABLES in it replaced, but for a path that exists as it stands.

    Args:
        name: of the setting, for messages.
        given: its value.

    Raises:
        ValueError: it names a variable that is not set, and nothing has the name that it stands for.
    """
    # os.path takes what no file can be called, such as a name of a thousand letters; Path raises.
    literal = Path(os.path.expanduser(given))
    if os.path.exists(literal):
        return literal
    path = Path(os.path.expanduser(os.path.expandvars(given)))
    if "$" in str(path) and not os.path.exists(path):
        raise ValueError(
            f"{name}={os.fspath(given)!r} names an environment variable that is not set; set it to where the data is. "
            f"(Nothing is called {str(path)!r} either.)"
        )
    return path


@dataclass(slots=True)
class LeftOut:
    """What was found beside the data, or damaged in it, and left out.

    Attributes:
        foreign: what does not belong to the data: names by reason.
        broken: what does, and cannot be read: names by reason.
    """

    foreign: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Counts something that does not belong to the data."""
        self.foreign.setdefault(reason, []).append(name)

    def lose(self, reason: str, name: str) -> None:
        """Counts something that belongs to the data and is broken."""
        self.broken.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        """How many for which reason, each with the first name; empty if nothing was left out."""
        parts = [
            f"{len(names)} {reason} ({'such as ' if len(names) > 1 else ''}{names[0]})"
            for reasons in (self.broken, self.foreign)
            for reason, names in reasons.items()
        ]
        return "; ".join(parts)
