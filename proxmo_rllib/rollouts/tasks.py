"""Which task each group plays: a seeded shuffle of the split, gone through again and again.

A run is a function of its config and seed, and a resumed run goes on where it stopped: the sampler's whole state is its
position, which the checkpoint carries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from proxmo_rllib.types import Assignment


class TaskSampler:
    """Deals tasks to groups without repetition within an epoch.

    Args:
        tasks: ids of the split, in a fixed order.
        seed: of the shuffles and of the environments' resets.
    """

    def __init__(self, tasks: Sequence[str], seed: int) -> None:
        if not tasks:
            raise ValueError("The split has no task. Choose another split, or loosen the environment's filters.")
        self._tasks = list(tasks)
        self._seed = seed
        self._position = 0
        self._epoch_order: tuple[int, list[int]] | None = None

    def deal(self, num_groups: int, group_size: int) -> list[Assignment]:
        """The next assignments."""
        return [self._next(group_size) for _ in range(num_groups)]

    def _next(self, group_size: int) -> Assignment:
        position = self._position
        self._position += 1
        epoch, place = divmod(position, len(self._tasks))
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            order = list(range(len(self._tasks)))
            random.Random(f"tasks-{self._seed}-{epoch}").shuffle(order)
            self._epoch_order = (epoch, order)
        task = self._tasks[self._epoch_order[1][place]]
        seed = random.Random(f"group-{self._seed}-{position}").randrange(2**31)
        return Assignment(group_id=f"{self._seed}-{position}", task=task, seed=seed, size=group_size)

    def get_state(self) -> dict[str, int]:
        """The position: how many groups have been dealt."""
        return {"position": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on where the state was taken."""
        self._position = state["position"]
