"""A player who knows every command and no method: it looks anywhere, forgets where it has been, and is distracted.

A policy cloned from it does what it says without being good at it, which is where reinforcement learning begins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env_wrappers.alfworld.expert import LOOK, SearchingExpert, kind_of


class Novice(SearchingExpert):
    """Searches at random and without memory; what it finds it handles as the expert does.

    Attributes:
        detour: whether the last action was a slip, which an imitator shall not copy.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        diligence: float = 0.1,
        idleness: float = 0.15,
        openness: float = 0.6,
        distraction: float = 0.1,
        memory: float = 0.0,
        slips: Sequence[float] = (0.0, 0.15, 0.3),
    ) -> None:
        """Make a player.

        Args:
            rng: draws everything.
            diligence: share of episodes that it plays as the expert.
            idleness: share of its other actions that are anything admissible.
            openness: chance that it opens a closed receptacle that it stands at.
            distraction: chance that it picks up something else that it sees.
            memory: chance that it goes where the expert would look next, and not just anywhere.
            slips: shares of actions that go wrong; each episode draws one. Who has never seen "Nothing happens." does
                not know what to do about it.
        """
        super().__init__(rng)
        self.diligence = diligence
        self.idleness = idleness
        self.openness = openness
        self.distraction = distraction
        self.memory = memory
        self.slips = tuple(slips)
        self.detour = False
        self._slipping = 0.0
        self._diligent = False
        self._actions: list[str] = []

    def reset(self, observation: str, info: Mapping[str, Any]) -> None:
        super().reset(observation, info)
        self._diligent = self.rng.random() < self.diligence
        self._slipping = self.rng.choice(self.slips)

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        self._actions = [action for action in info["admissible_actions"] if action != "help"]
        action = super().act(observation, info)
        self.detour = self.rng.random() < self._slipping
        return self.slip(info) if self.detour else action

    def _next(self) -> str:
        if not self._diligent and self.rng.random() < self.idleness:
            return self.rng.choice(self._actions)
        return super()._next()

    def _find(self, thing: str, ignored: Callable[[str, str], bool], command: str) -> str:
        if self._diligent:
            return super()._find(thing, ignored, command)
        here = self.known.location
        if here is not None:
            for name in self.known.contents.get(here, ()):
                if kind_of(name) == thing and not ignored(name, here):
                    return command.format(name, here)
            if here in self.known.closed and self.rng.random() < self.openness:
                return f"open {here}"
            takeable = [action for action in self._actions if action.startswith("take ")]
            if takeable and self.task.kind != LOOK and self.rng.random() < self.distraction:
                return self.rng.choice(takeable)
        if self.rng.random() < self.memory:
            return super()._find(thing, ignored, command)
        return f"go to {self.rng.choice([name for name in self.order if name != here])}"
