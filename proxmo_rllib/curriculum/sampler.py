"""What is played next, and what is learned from: a pull and a push, whose order is all that the sampler knows of time.

A run is a function of its config and seed, and a resumed run goes on where it stopped: the sampler's whole state is its
position and that of its parts, which the checkpoint carries.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np

from proxmo_rllib.curriculum.dynamic_sampling import KeepAll
from proxmo_rllib.curriculum.parts import Context, DynamicSampling, GroupOutcome, Horizon, Part, TaskOrder
from proxmo_rllib.curriculum.registry import DYNAMIC_SAMPLINGS, HORIZONS, TASK_ORDERS
from proxmo_rllib.registry import Registry
from proxmo_rllib.types import Assignment, Group


class TaskSampler:
    """Deals tasks to groups; without a curriculum, without repetition within an epoch.

    Args:
        context: the run.
        task_order: which task is next.
        horizon: for how many turns it is played.
        dynamic_sampling: which groups are learned from.
    """

    def __init__(
        self, context: Context, task_order: TaskOrder, horizon: Horizon, dynamic_sampling: DynamicSampling
    ) -> None:
        self._seed = context.seed
        self._position = 0
        self._order, self._horizon, self._sampling = task_order, horizon, dynamic_sampling
        self._again: deque[Assignment] = deque()  # dealt before a checkpoint, and not learned from

    @classmethod
    def of(cls, config: Any, tasks: Sequence[str]) -> Self:
        """The sampler of a run.

        Args:
            config: a ProxMOConfig.
            tasks: ids of its split.

        Raises:
            ValueError: there is no task, or a part cannot be made as it is set; names the setting and what is wrong.
        """
        if not tasks:
            raise ValueError("The split has no task. Choose another split, or loosen the environment's filters.")
        context = Context(
            tasks=tasks,
            seed=config.seed or 0,
            max_turns=config.max_turns,
            num_groups=config.num_groups,
            estimate=lambda group: _estimate(config, group),
        )
        return cls(
            context,
            _make("task_order", TASK_ORDERS, config.task_order, TaskOrder, context),
            _make("horizon", HORIZONS, config.horizon, Horizon, context),
            _make("dynamic_sampling", DYNAMIC_SAMPLINGS, config.dynamic_sampling, DynamicSampling, context),
        )

    @property
    def is_dynamic(self) -> bool:
        """Whether groups may be left out."""
        return not isinstance(self._sampling, KeepAll)

    @property
    def at_most(self) -> float:
        """Groups that are played in an iteration at most, in multiples of those that it is to have."""
        return self._sampling.at_most

    def next(self, group_size: int) -> Assignment:
        """The next assignment.

        Raises:
            RuntimeError: dynamic sampling has left out so many groups in a row that the run would not end.
        """
        self._sampling.check()
        if self._again:
            return self._again.popleft()
        position = self._position
        self._position += 1
        seed = random.Random(f"group-{self._seed}-{position}").randrange(2**31)
        task = self._order.task(position)
        return Assignment(f"{self._seed}-{position}", task, seed, group_size, self._horizon.turns())

    def deal(self, num_groups: int, group_size: int) -> list[Assignment]:
        """The next assignments."""
        return [self.next(group_size) for _ in range(num_groups)]

    def judge(self, assignment: Assignment, group: Group) -> GroupOutcome:
        """What a group came to. Changes nothing here, and so may be asked anywhere, in any order."""
        return GroupOutcome(
            task=assignment.task,
            max_turns=assignment.max_turns,
            successes=sum(episode.success for episode in group.episodes),
            returns=tuple(episode.episode_return for episode in group.episodes),
            contrast=self._sampling.has_contrast(group),
        )

    def ended(self, outcome: GroupOutcome) -> None:
        """A group ended, whether it is learned from or not; one that broke never does."""
        for part in self._parts().values():
            part.ended(outcome)

    def metrics(self) -> dict[str, float]:
        """Where the curriculum stands, by name; nothing without one."""
        return {name: value for part in self._parts().values() for name, value in part.metrics().items()}

    def get_state(self, pending: Sequence[Assignment] = ()) -> dict[str, Any]:
        """What a checkpoint keeps: JSON.

        Args:
            pending: groups that were dealt and not learned from.

        Returns:
            `position`, how many groups have been dealt; the state of the parts that have one; and `pending`, the groups
            that a resumed run is dealt first, if there are any.
        """
        state: dict[str, Any] = {"position": self._position}
        if again := [asdict(assignment) for assignment in (*pending, *self._again)]:
            state["pending"] = again
        for key, part in self._parts().items():
            if kept := part.get_state():
                state[key] = {type(part).__name__: kept}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken. A part that is another one now begins anew."""
        self._position = state["position"]
        self._again = deque(Assignment(**fields) for fields in state.get("pending", ()))
        for key, part in self._parts().items():
            kept = state.get(key, {})
            if type(part).__name__ in kept:
                part.set_state(kept[type(part).__name__])

    def _parts(self) -> Mapping[str, Part]:
        return {"task_order": self._order, "horizon": self._horizon, "dynamic_sampling": self._sampling}


def _make(key: str, registry: Registry[Any], value: Any, kind: type[Part], context: Context) -> Any:
    choice = registry.choose(key, value)
    try:
        part = choice(context)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}={value!r}: {error}") from error
    if not isinstance(part, kind):
        raise ValueError(
            f"{key}={value!r}: it makes {type(part).__name__}; derive it from proxmo_rllib.curriculum.{kind.__name__}."
        )
    return part


def _estimate(config: Any, group: Group) -> np.ndarray:
    from proxmo_rllib.advantages import estimate_advantages
    from proxmo_rllib.learner.advantages_connector import turn_table

    estimate = estimate_advantages(turn_table(group.episodes), config.estimator(), **config.estimator_settings())
    return np.asarray(estimate.total)
