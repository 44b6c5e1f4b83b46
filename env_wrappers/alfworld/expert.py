"""A player that knows only what it has read: it looks where such objects usually are and remembers what it saw.

The oracle never opens an empty drawer, so whoever imitates it has never seen a miss. This player searches as an agent
must, and so makes the better teacher.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from env_wrappers.alfworld import package
from env_wrappers.alfworld.problem import TASK_TYPES

PICK, LOOK, CLEAN, HEAT, COOL, PICK_TWO = "pick", "look", "clean", "heat", "cool", "pick two"
_SENTENCES = (
    (PICK_TWO, re.compile(r"put two (\w+) in (\w+)")),
    (PICK_TWO, re.compile(r"find two (\w+) and put them in (\w+)")),
    (CLEAN, re.compile(r"put a clean (\w+) in (\w+)|clean some (\w+) and put it in (\w+)")),
    (HEAT, re.compile(r"put a hot (\w+) in (\w+)|heat some (\w+) and put it in (\w+)")),
    (COOL, re.compile(r"put a cool (\w+) in (\w+)|cool some (\w+) and put it in (\w+)")),
    (PICK, re.compile(r"put a (\w+) in (\w+)|put some (\w+) on (\w+)")),
    (
        LOOK,
        re.compile(r"look at (\w+) under the (\w+)|examine the (\w+) with the (\w+)|look at a (\w+) under the (\w+)"),
    ),
)
_APPLIANCES = {CLEAN: "sinkbasin", HEAT: "microwave", COOL: "fridge"}
_VERBS = {CLEAN: "clean", HEAT: "heat", COOL: "cool"}
_LAMP_HOSTS = frozenset({"desk", "sidetable", "dresser", "diningtable", "coffeetable", "shelf"})

_ITEM = re.compile(r"\ba (\w+ \d+)")
_ARRIVED = re.compile(r"You arrive at (\w+ \d+)\.")
_CLOSED = re.compile(r"[Tt]he (\w+ \d+) is closed\.|You close the (\w+ \d+)\.")
_CONTENTS = re.compile(r"(?:On the|The) (\w+ \d+)(?: is open\. In it)?, you see (.*)")
_TAKEN = re.compile(r"You pick up the (\w+ \d+) from the (\w+ \d+)\.")
_MOVED = re.compile(r"You move the (\w+ \d+) to the (\w+ \d+)\.")
_PREPARED = re.compile(r"You (clean|heat|cool) the (\w+ \d+) using")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the sentence of a task asks for."""

    kind: str  # PICK, LOOK, CLEAN, HEAT, COOL or PICK_TWO
    thing: str  # type of the object, e.g. "mug"
    place: str  # type of the receptacle, or of the lamp for LOOK


def parse_task(sentence: str) -> Assignment:
    """Read the sentence of a task.

    Raises:
        ValueError: it is none of ALFWorld's fourteen sentences, a person's words perhaps.
    """
    for kind, pattern in _SENTENCES:
        if match := pattern.fullmatch(sentence.strip().rstrip(".")):
            thing, place = (word for word in match.groups() if word)
            return Assignment(kind, thing, place)
    raise ValueError(f"the task {sentence!r} is no sentence of ALFWorld's templates; the expert reads no others.")
