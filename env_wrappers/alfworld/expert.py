"""A player that knows only what it has read: it looks where such objects usually are and remembers what it saw.

The oracle never opens an empty drawer, so whoever imitates it has never seen a miss. This player searches as an agent
must, and so makes the better teacher.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from env_wrappers.alfworld import package

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


class Notebook:
    """What an agent knows: everything that it has read since the start of the episode, and nothing else.

    Attributes:
        receptacles: names in the order in which the introduction lists them.
        contents: receptacle -> names of the objects that were last seen in it; without those never looked into.
        closed: receptacles that are known to be closed.
        location: the receptacle that the agent stands at; None at the start.
        holding: name of the object in its hand, or None.
        taken_from: where `holding` was.
        prepared: (kind of task, object) of everything that was cleaned, heated or cooled.
    """

    def __init__(self, introduction: str) -> None:
        _, _, room = introduction.partition("you see")
        self.receptacles = _ITEM.findall(room.partition("Your task is to:")[0])
        self.contents: dict[str, list[str]] = {}
        self.closed: set[str] = set()
        self.location: str | None = None
        self.holding: str | None = None
        self.taken_from: str | None = None
        self.prepared: set[tuple[str, str]] = set()

    def read(self, observation: str) -> None:
        """Take in what came of an action."""
        if match := _ARRIVED.match(observation):
            self.location = match[1]
        if match := _CLOSED.search(observation):
            self.closed.add(match[1] or match[2])
        if match := _CONTENTS.search(observation):
            self.closed.discard(match[1])
            self.contents[match[1]] = _ITEM.findall(match[2])
        if match := _TAKEN.match(observation):
            self.holding, self.taken_from = match[1], match[2]
            if match[1] in self.contents.get(match[2], ()):
                self.contents[match[2]].remove(match[1])
        if match := _MOVED.match(observation):
            self.holding = None
            self.contents.setdefault(match[2], []).append(match[1])
        if match := _PREPARED.match(observation):
            kind = next(kind for kind, verb in _VERBS.items() if verb == match[1])
            self.prepared.add((kind, match[2]))

    def number_in(self, receptacle: str, thing: str) -> int:
        """How many objects of a type were last seen in a receptacle."""
        return sum(kind_of(name) == thing for name in self.contents.get(receptacle, ()))


class SearchingExpert:
    """Solves ALFWorld's tasks from the observations alone.

    It goes to the likely places first, in the order in which the room lists them, opens what is closed, notes what it
    sees on the way, and recovers when somebody else did an action in its place.
    """

    def __init__(self, rng: random.Random, shuffle: float = 0.0) -> None:
        """Make a player.

        Args:
            rng: draws the order of search, and the slips.
            shuffle: share of episodes that are searched in random order. In the listed order an imitator can find out
                where it has been by looking at where it is; in random order it has to remember.
        """
        self.rng = rng
        self.shuffle = shuffle
        self._in_reach: frozenset[str] = frozenset()
        self._started = False

    def reset(self, observation: str, info: Mapping[str, Any]) -> None:
        """Begin an episode.

        Args:
            observation: of the environment's reset.
            info: of the environment's reset; the task is read from `goal`.

        Raises:
            ValueError: the task is in none of ALFWorld's own sentences.
        """
        self.task = parse_task(info["goal"])
        self.known = Notebook(observation)
        self.order = list(self.known.receptacles)
        if self.rng.random() < self.shuffle:
            self.rng.shuffle(self.order)
        self._started = False

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next action.

        Args:
            observation: what the last action led to, whoever chose it; at first that of reset.
            info: with it. Of `admissible_actions` only those to go somewhere are read.
        """
        if self._started:
            self.known.read(observation)
        self._started = True
        # Several receptacles may share a place, and one cannot go where one is.
        admissible = frozenset(info["admissible_actions"])
        self._in_reach = frozenset(name for name in self.order if f"go to {name}" not in admissible)
        return self._next()

    def slip(self, info: Mapping[str, Any]) -> str:
        """What an inattentive player might do now: anything admissible, or something that does not work."""
        if self.rng.random() < 0.4:
            admissible: list[str] = sorted(action for action in info["admissible_actions"] if action != "help")
            return self.rng.choice(admissible)
        anywhere = self.rng.choice(self.order)
        wrong = [f"open {anywhere}", f"move {self.task.thing} 1 to {anywhere}", f"use {self.task.place} 1"]
        if self.known.location:
            wrong.append(f"go to {self.known.location}")
            wrong.append(f"take {self.task.thing} {self.rng.randint(1, 3)} from {self.known.location}")
            seen = sorted(name for names in self.known.contents.values() for name in names)
            wrong += [f"take {name} from {self.known.location}" for name in self.rng.sample(seen, min(2, len(seen)))]
        return self.rng.choice(wrong)

    # What to do next

    def _next(self) -> str:
        held, task = self.known.holding, self.task
        if held is None:
            return self._find(task.thing, self._finished, "take {} from {}")
        if kind_of(held) != task.thing:
            return self._move(held, self.known.taken_from or self.order[0])
        if task.kind == LOOK:
            return self._find(task.place, lambda name, receptacle: False, "use {}")
        if task.kind in _APPLIANCES and (task.kind, held) not in self.known.prepared:
            appliance = self._of_type(_APPLIANCES[task.kind])[0]
            return self._approach(appliance) or f"{_VERBS[task.kind]} {held} with {appliance}"
        return self._move(held, self._destination())

    def _find(self, thing: str, ignored: Callable[[str, str], bool], command: str) -> str:
        """Towards an object of a type: where one was seen, else the likeliest place that was not looked into."""
        for receptacle in self.order:
            for name in self.known.contents.get(receptacle, ()):
                if kind_of(name) == thing and not ignored(name, receptacle):
                    return self._reach(receptacle) or command.format(name, receptacle)
        unseen = [receptacle for receptacle in self.order if receptacle not in self.known.contents]
        if not unseen:
            return "look"  # nothing left to try: the task cannot be done, as far as one can read
        receptacle = min(unseen, key=lambda name: self._unlikeliness(thing, name))
        return self._reach(receptacle) or f"examine {receptacle}"

    def _unlikeliness(self, thing: str, receptacle: str) -> tuple[int, bool]:
        """For sorting: likely places first, and of these the ones that need no opening and hold more."""
        kind = kind_of(receptacle)
        # What one is to bring somewhere is hardly there already.
        there = self.task.kind != LOOK and kind == self.task.place
        return (int(there) if may_hold(kind, thing) else 2), may_be_closed(kind)

    def _finished(self, name: str, receptacle: str) -> bool:
        """Whether an object is where it belongs, and stays."""
        task = self.task
        if task.kind == PICK_TWO:
            return receptacle == self._destination()
        ready = task.kind not in _APPLIANCES or (task.kind, name) in self.known.prepared
        return task.kind != LOOK and kind_of(receptacle) == task.place and ready

    def _destination(self) -> str:
        """Of the receptacles of the task's type the one with the most objects of the task's type."""
        return max(self._of_type(self.task.place), key=lambda name: self.known.number_in(name, self.task.thing))

    def _of_type(self, kind: str) -> list[str]:
        found = [name for name in self.order if kind_of(name) == kind]
        # FloorPlan420 has a sink that the text calls a bathtub.
        return found or [name for name in self.order if kind == "sinkbasin" and kind_of(name) == "bathtubbasin"]

    def _move(self, thing: str, receptacle: str) -> str:
        return self._reach(receptacle) or f"move {thing} to {receptacle}"

    def _approach(self, receptacle: str) -> str | None:
        """The command that brings one to a receptacle; None where it is in reach."""
        return None if receptacle in self._in_reach else f"go to {receptacle}"

    def _reach(self, receptacle: str) -> str | None:
        """The command that makes a receptacle's inside accessible; None where it is, as far as one knows."""
        if approach := self._approach(receptacle):
            return approach
        return f"open {receptacle}" if receptacle in self.known.closed else None


def kind_of(name: str) -> str:
    """The type in a name: "cabinet" of "cabinet 1"."""
    return name.rpartition(" ")[0]


@cache
def may_hold(receptacle: str, thing: str) -> bool:
    """Whether things of a type are usually found in receptacles of a type, both in the words of the text."""
    if thing == "desklamp":
        return receptacle in _LAMP_HOSTS
    return thing in _usual_contents().get(receptacle, frozenset())


@cache
def may_be_closed(receptacle: str) -> bool:
    """Whether receptacles of a type are opened and closed."""
    return receptacle in {kind.lower() for kind in package.constants().OPENABLE_CLASS_SET}


@cache
def _usual_contents() -> dict[str, frozenset[str]]:
    held = package.constants().VAL_RECEPTACLE_OBJECTS
    return {receptacle.lower(): frozenset(thing.lower() for thing in things) for receptacle, things in held.items()}
