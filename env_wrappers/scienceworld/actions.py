"""Which of ScienceWorld's valid actions are listed: in a kitchen there are thousands, most of them "connect X to Y"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

MIN_ACTIONS = 60  # room for a pattern and an example of each type of action
RESTART = "reset task"  # starts the episode again inside of it: neither listed nor sent

# The engine takes it for "look at", does not list it, and uses it in its own paths.
_UNLISTED = "examine <object>"

_WORDS = re.compile(r"[a-z]+")
_COMMON = frozenset(
    _WORDS.findall(
        "a an and are as at be box by can dont first focus for from in into is it its of on or room so take than that "
        "the then there this to using when which will with you your task"
    )
)


def pattern(template: str) -> str:
    """How a type of action is listed: "move OBJ to OBJ" as "move <object> to <other>"."""
    if template == "go OBJ":
        return "go to <place>"
    shown = template.replace("OBJ", "<object>", 1).replace("OBJ", "<other>", 1)
    # The engine's own path says "pour X into Y", and so do the actions that it lists.
    return shown.replace(" in <other>", " into <other>")


def choose_actions(valid: Mapping[str, int], templates: Sequence[str], goal: str, limit: int) -> tuple[str, ...]:
    """The actions to list, sorted. The same arguments give the same list.

    Every type of action that the engine knows is there as a pattern with placeholders, so that the expert's action is
    always admissible, whether it is among the examples or not. Below the patterns come examples, by turns one of each
    type until the list is full; within a type those first that name most of the goal's words, then the shorter ones,
    then by the alphabet.

    Args:
        valid: actions that do something now, and the type of each.
        templates: types of action, in the engine's words.
        goal: the task in words.
        limit: length of the list at most, `MIN_ACTIONS` or more.
    """
    listed = {_UNLISTED, *(pattern(template) for template in templates if template != RESTART)}
    wanted = set(_WORDS.findall(goal.lower())) - _COMMON
    by_type: dict[int, list[str]] = {}
    for action, kind in valid.items():
        if action != RESTART and action not in listed:
            by_type.setdefault(kind, []).append(action)
    rows = (sorted(by_type[kind], key=lambda action: _rank(action, wanted)) for kind in sorted(by_type))
    for action in _by_turns(rows):
        if len(listed) >= limit:
            break
        listed.add(action)
    return tuple(sorted(listed))


def _rank(action: str, wanted: set[str]) -> tuple[int, int, str]:
    return -len(wanted & set(_WORDS.findall(action))), len(action), action


def _by_turns(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    return (action for turn in zip_longest(*rows) for action in turn if action is not None)
