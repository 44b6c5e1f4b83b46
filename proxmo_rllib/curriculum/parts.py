"""What a curriculum is made of: what its parts are told, and what each is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxmo_rllib.types import Group

# Iterations' worth of groups in a row without anything to learn from, after which a run fails.
_MOST_EMPTY = 5


@dataclass(frozen=True, slots=True)
class Context:
    """The run that a curriculum is of.

    Attributes:
        tasks: ids of the split, in a fixed order.
        seed: of the run.
        max_turns: the full horizon.
        num_groups: groups of an iteration.
        estimate: the advantages of a group by the run's estimator, float64 [turns].
    """

    tasks: Sequence[str]
    seed: int
    max_turns: int
    num_groups: int
    estimate: Callable[[Group], np.ndarray]


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What the parts are told of a group that ended. It is small: it may travel where the group does not.

    Attributes:
        task: that was played.
        max_turns: that its episodes had at most; None for the full horizon.
        successes: episodes that the environment calls a success.
        returns: undiscounted sum of rewards of each episode.
        contrast: whether there is something to learn from it, by the dynamic sampling.
    """

    task: str
    max_turns: int | None
    successes: int
    returns: tuple[float, ...]
    contrast: bool = True

    @property
    def episodes(self) -> int:
        return len(self.returns)


class Part:
    """What all parts have. State is what JSON can say; a part without any returns an empty dictionary."""

    def ended(self, outcome: GroupOutcome) -> None:
        """A group ended. Outcomes come in the order in which they count, one that broke never."""

    def metrics(self) -> Mapping[str, float]:
        """Numbers to log each iteration, by name."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """What was learned from the outcomes so far."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken."""


class TaskOrder(Part, ABC):
    """Which task is next."""

    @abstractmethod
    def task(self, position: int) -> str:
        """The task of the next group.

        Args:
            position: groups that were dealt before it, since the start of the run.
        """


class Horizon(Part, ABC):
    """For how many turns an episode is played."""

    @abstractmethod
    def turns(self) -> int | None:
        """That the next group's episodes have at most, 1 to `max_turns`; None for the full horizon."""


class DynamicSampling(Part, ABC):
    """Which groups there is something to learn from; the others are left out, and new ones take their place.

    Args:
        context: the run.
        at_most: groups that are played in an iteration at most, in multiples of `num_groups`.
    """

    def __init__(self, context: Context, at_most: float) -> None:
        self.at_most = at_most
        self._limit = _MOST_EMPTY * int(at_most * context.num_groups)
        self._flat, self._solved, self._episodes = 0, 0, 0  # groups in a row without contrast, and what they came to

    @abstractmethod
    def has_contrast(self, group: Group) -> bool:
        """Whether there is something to learn from a group; asked of whole groups without a broken episode."""

    def ended(self, outcome: GroupOutcome) -> None:
        if outcome.contrast:
            self._flat, self._solved, self._episodes = 0, 0, 0
            return
        self._flat += 1
        self._solved += outcome.successes
        self._episodes += outcome.episodes

    def check(self) -> None:
        """Is called before a group is dealt.

        Raises:
            RuntimeError: nothing is left to learn, or nothing can be learned: the run would play for ever.
        """
        if self._flat < self._limit:
            return
        if self._solved == self._episodes:
            remedy = "The tasks are learned: stop, or take harder ones"
        elif not self._solved:
            remedy = (
                "Nothing succeeds: begin with a policy that solves some (proxmo warm-start), easier tasks, a larger "
                "group_size or a longer horizon"
            )
        else:
            remedy = "Each task is solved always or never: take others, or a larger group_size"
        raise RuntimeError(
            f"dynamic_sampling: the last {self._flat} groups had nothing to learn from, with {self._solved} of "
            f"{self._episodes} episodes solved. {remedy}; or set dynamic_sampling='none' to learn from every group."
        )

    def get_state(self) -> dict[str, Any]:
        return {"flat": self._flat, "solved": self._solved, "episodes": self._episodes}

    def set_state(self, state: dict[str, Any]) -> None:
        self._flat, self._solved, self._episodes = state["flat"], state["solved"], state["episodes"]
