"""What is played: groups of episodes of turns, drawn again from what was recorded, or from distributions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

#: A turn: tokens that are new in its prompt, tokens that are sampled.
Turn = tuple[int, int]
Played = Sequence[Sequence[Turn]]


class Workload(Protocol):
    """Where groups come from."""

    def group(self, rng: random.Random, size: int) -> Played:
        """The next group: of each episode its turns."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Draws whole groups of those that were recorded, so that the episodes of a task stay together.

    Attributes:
        groups: that were recorded.
    """

    groups: Sequence[Sequence[Sequence[Sequence[int]]]]

    def group(self, rng: random.Random, size: int) -> Played:
        """See `Workload`."""
        chosen = rng.choice(self.groups)
        episodes = [chosen[index] if index < len(chosen) else rng.choice(chosen) for index in range(size)]
        return [[(turn[0], turn[1]) for turn in episode] for episode in episodes]


@dataclass(frozen=True, slots=True)
class Mixed:
    """Draws each length on its own: turns evenly between two bounds, responses evenly in their logarithm.

    Attributes:
        turns: fewest and most of an episode.
        response: fewest and most tokens of a response.
        first: tokens of the first prompt.
        observation: tokens of each one after it.
    """

    turns: tuple[int, int]
    response: tuple[int, int]
    first: int
    observation: int

    def group(self, rng: random.Random, size: int) -> Played:
        """See `Workload`."""
        return [
            [
                (self.observation if turn else self.first, self._response(rng))
                for turn in range(rng.randint(*self.turns))
            ]
            for _ in range(size)
        ]

    def _response(self, rng: random.Random) -> int:
        low, high = self.response
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))
