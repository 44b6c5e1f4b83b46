"""Crafters that know only what they have read: a careful one, who teaches, and a hasty one, from whom there is much to
unlearn.

The environment's own `plan()` knows the book; these read the recipes and the goal in the text, and keep count of what
they hold by the answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from env_wrappers.textcraft.notebook import Notebook
from env_wrappers.textcraft.tasks import MAX_GET


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
