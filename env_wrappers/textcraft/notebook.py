"""What one can know of a task of TextCraft by reading: the recipes, the goal, and what one holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
