"""Crafters that know only what they have read: a careful one, who teaches, and a hasty one, from whom there is much to
unlearn.

The environment's own `plan()` knows the book; these read the recipes and the goal in the text, and keep count of what
they hold by the answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from env_wrappers.textcraft.tasks import MAX_GET

_NUMBER = r"([1-9]\d{0,8})"
_LIST = r"([1-9]\d{0,8} [^,]+(?:, [1-9]\d{0,8} [^,]+)*)"
_RECIPE = re.compile(rf"craft {_NUMBER} (.+?) using {_LIST}")
_GOAL = re.compile(rf"Your goal: craft {_NUMBER} (.+)\.")
_GOT = re.compile(rf"You get {_NUMBER} (.+)\.")
_CRAFTED = re.compile(rf"You craft {_NUMBER} (.+)\.")
_HELD = re.compile(rf"You hold: (?:nothing|{_LIST})\.")
_LACKED = re.compile(rf"Nothing happens\. You lack {_LIST}\.")
_ABSENT = re.compile(r"Nothing happens\. (?:There is no (.+) here|(.+) must be crafted)\.")


@dataclass(frozen=True, slots=True)
class Line:
    """A recipe, as it was read.

    Attributes:
        text: the action that follows it.
        number: how many are made at once.
        item: what is made.
        parts: item -> number, in the order of the line.
    """

    text: str
    number: int
    item: str
    parts: Mapping[str, int]


class Notebook:
    """What an agent knows: what it has read since the start of the episode, and nothing else.

    Attributes:
        lines: the recipes, in their order.
        number, item: what is to be made.
        held: item -> number.
        absent: items that cannot be got.
        sure: whether `held` is right, as far as one can tell. After an answer that can be read in two ways, or in none,
            or that contradicts it, only the inventory can say.
    """

    def __init__(self, introduction: str) -> None:
        """Read the recipes and the goal.

        Raises:
            ValueError: the text has no recipes, no goal, no recipe for it, or an item that is needed to make itself.
        """
        self.held: dict[str, int] = {}
        self.absent: set[str] = set()
        self.sure = True
        self.lines = [line for line in map(_read_line, introduction.splitlines()) if line is not None]
        goal = _GOAL.search(introduction)
        if goal is None or not self.lines:
            raise ValueError(
                f"{introduction[:200]!r} is no beginning of TextCraft's tasks: the crafters read recipes, as 'craft 4 "
                "stick using 2 oak planks', and 'Your goal: craft 1 ladder.'"
            )
        self.number, self.item = int(goal[1]), goal[2]
        self._recipes: dict[str, Line] = {}
        for line in self.lines:
            self._recipes.setdefault(line.item, line)
        if self.item not in self._recipes:
            raise ValueError(f"the goal is to craft {self.item!r}, and none of the {len(self.lines)} recipes makes it.")
        self._order = self._sorted()

    def read(self, observation: str) -> None:
        """Take in what came of an action, whoever chose it."""
        if observation.startswith("The recipes:"):
            return
        if match := _GOT.fullmatch(observation):
            self.held[match[2]] = self.held.get(match[2], 0) + int(match[1])
        elif match := _CRAFTED.fullmatch(observation):
            self._note_crafted(int(match[1]), match[2])
        elif match := _HELD.fullmatch(observation):
            self.held = _amounts(match[1]) if match[1] else {}
            self.sure = True
        elif match := _LACKED.fullmatch(observation):
            lacked = _amounts(match[1])
            self.sure &= any(lacked == self._lacking(line.parts) for line in self.lines)
        elif match := _ABSENT.fullmatch(observation):
            self.absent.add(match[1] or match[2])
        elif not observation.startswith("Nothing happens."):
            self.sure = False

    def recipe(self, item: str) -> Line | None:
        """The first recipe for an item; None for what is to be got."""
        return self._recipes.get(item)

    def missing(self) -> dict[str, int]:
        """Item -> how many more of it must be got or made for the goal; without those of which there are enough."""
        demand = {self.item: self.number}
        missing: dict[str, int] = {}
        # When an item's turn comes, all that it goes into has been counted.
        for item in self._order:
            lacking = demand.get(item, 0) - self.held.get(item, 0)
            if lacking <= 0:
                continue
            missing[item] = lacking
            if line := self.recipe(item):
                for part, number in line.parts.items():
                    demand[part] = demand.get(part, 0) + number * -(-lacking // line.number)
        return missing

    def has(self, parts: Mapping[str, int]) -> bool:
        """Whether there is enough of each."""
        return not self._lacking(parts)

    def hopeless(self) -> bool:
        """Whether the goal takes something that can be neither got nor made."""
        return any(self.recipe(item) is None for item in self.absent.intersection(self.missing()))

    def _lacking(self, parts: Mapping[str, int]) -> dict[str, int]:
        needed = {item: number - self.held.get(item, 0) for item, number in parts.items()}
        return {item: number for item, number in needed.items() if number > 0}

    def _note_crafted(self, number: int, item: str) -> None:
        ways = [line for line in self.lines if (line.number, line.item) == (number, item) and self.has(line.parts)]
        if len({frozenset(line.parts.items()) for line in ways}) != 1:
            self.sure = False  # the answer does not say what it took
            return
        for part, taken in ways[0].parts.items():
            self.held[part] -= taken
        self.held[item] = self.held.get(item, 0) + number

    def _sorted(self) -> list[str]:
        """What the goal may take, each item before those that go into it."""
        done: list[str] = []
        open_: list[str] = []

        def visit(item: str) -> None:
            if item in open_:
                raise ValueError(f"by the recipes {item!r} is needed to make {item!r}; the crafters read no such ones.")
            if item not in done:
                open_.append(item)
                line = self.recipe(item)
                for part in line.parts if line else ():
                    visit(part)
                open_.remove(item)
                done.append(item)

        visit(self.item)
        return done[::-1]


class ReadingCrafter:
    """Makes what is asked for from the ingredients up, as the recipes say, with no step too many.

    It follows the goal's recipe down to the first ingredient of which there is too little, gets or makes all that will
    be needed of that, and goes on. It reads observations; of `info` only `slip` reads something.

    Attributes:
        detour: whether the last action was a slip, which an imitator shall not copy.
    """

    def __init__(self, rng: random.Random, slips: Sequence[float] = (0.0,)) -> None:
        """Make a crafter.

        Args:
            rng: draws the slips.
            slips: shares of actions that go wrong; each episode draws one. Who has never seen "Nothing happens." does
                not know what to do about it.

        Raises:
            ValueError: there is no share, or one that is none.
        """
        self.rng = rng
        self.slips = tuple(slips)
        if not self.slips or not all(0 <= share <= 1 for share in self.slips):
            raise ValueError(f"slips={slips!r}: give one or more shares of the actions, from 0 to 1.")
        self.detour = False
        self._slipping = 0.0
        self._started = False

    def reset(self, observation: str, info: Mapping[str, Any]) -> None:
        """Begin an episode.

        Args:
            observation: of the environment's reset: the recipes and the goal.
            info: of the environment's reset. It is not read.

        Raises:
            ValueError: the observation is no beginning of TextCraft's tasks.
        """
        self.known = Notebook(observation)
        self._slipping = self.rng.choice(self.slips)
        self._started = False

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next action.

        Args:
            observation: what the last action led to, whoever chose it; at first that of reset.
            info: with it, for a slip.
        """
        if self._started:
            self.known.read(observation)
        self._started = True
        action = self._next()
        self.detour = self.rng.random() < self._slipping
        return self.slip(info) if self.detour else action

    def slip(self, info: Mapping[str, Any]) -> str:
        """What an inattentive player might do now: anything admissible, or something that does not work."""
        if self.rng.random() < 0.4:
            return re.sub(
                r"<\w+>", lambda gap: str(self.rng.randint(1, 9)), self.rng.choice(info["admissible_actions"])
            )
        line = self.rng.choice(self.known.lines)
        part = self.rng.choice(list(line.parts))
        return self.rng.choice(
            (line.text, f"get {line.number} {line.item}", f"get {line.parts[part]} {part}", f"craft {line.item}")
        )

    def _next(self) -> str:
        if not self.known.sure:
            return "inventory"
        missing = self.known.missing()
        item = self.known.item
        if item not in missing or self.known.hopeless():
            return "look"  # nothing left to do, or nothing that can be done, as far as one can read
        while line := self.known.recipe(item):
            part = next((part for part in line.parts if part in missing), None)
            if part is None:
                return line.text
            item = part
        return self._get(item, missing[item])

    def _get(self, item: str, number: int) -> str:
        """The action that gets so many of an item, or as many as one can at once."""
        return f"get {min(number, MAX_GET)} {item}"


class HastyCrafter(ReadingCrafter):
    """Knows every command and has no patience: where reinforcement learning may begin.

    What it does for the goal it does as the careful one. A clone of it reads recipes, says what can be said, and wastes
    its turns.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        impatience: float = 0.3,
        distraction: float = 0.35,
        carelessness: float = 0.8,
        idleness: float = 0.15,
        slips: Sequence[float] = (0.0, 0.1),
    ) -> None:
        """Make a crafter.

        Args:
            rng: draws everything.
            impatience: chance of an action that it crafts what is asked for at once, with or without the ingredients.
            distraction: chance of an action that it turns to a recipe that is not needed: it crafts by it if it can,
                whatever that uses up, or gets one of its ingredients.
            carelessness: chance that it gets one of something, of which it needs more.
            idleness: chance of an action that it looks at what it holds.
            slips: as of `ReadingCrafter`.

        Raises:
            ValueError: a chance is none, or the three of an action together are more than 1.
        """
        super().__init__(rng, slips)
        chances = {"impatience": impatience, "distraction": distraction, "idleness": idleness}
        for name, chance in (chances | {"carelessness": carelessness}).items():
            if not 0 <= chance <= 1:
                raise ValueError(f"{name}={chance!r}: it is a chance, from 0 to 1.")
        if sum(chances.values()) > 1:
            raise ValueError(f"{chances}: an action is one of these or none; together at most 1.")
        self.impatience = impatience
        self.distraction = distraction
        self.carelessness = carelessness
        self.idleness = idleness

    def _next(self) -> str:
        drawn = self.rng.random()
        goal = self.known.recipe(self.known.item)
        if drawn < self.impatience and goal is not None:
            return goal.text
        if drawn < self.impatience + self.distraction:
            return self._aside()
        if drawn < self.impatience + self.distraction + self.idleness:
            return "inventory"
        return super()._next()

    def _aside(self) -> str:
        """Something for a recipe that leads nowhere."""
        needed = self.known.missing()
        lines = [line for line in self.known.lines if line.item not in needed]
        if not lines:
            return super()._next()
        line = self.rng.choice(lines)
        if self.known.has(line.parts):
            return line.text
        part = self.rng.choice(list(line.parts))
        return f"get {line.parts[part]} {part}"

    def _get(self, item: str, number: int) -> str:
        if number > 1 and self.rng.random() < self.carelessness:
            number = 1
        return super()._get(item, number)


def _read_line(text: str) -> Line | None:
    match = _RECIPE.fullmatch(text.strip())
    return Line(match[0], int(match[1]), match[2], _amounts(match[3])) if match else None


def _amounts(text: str) -> dict[str, int]:
    """Item -> number, of "4 oak planks, 2 stick"."""
    amounts: dict[str, int] = {}
    for amount in text.split(", "):
        number, _, item = amount.partition(" ")
        amounts[item] = amounts.get(item, 0) + int(number)
    return amounts
