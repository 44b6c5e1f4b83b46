"""Which task each group plays: a seeded shuffle of the split, gone through again and again.

A run is a function of its config and seed, and a resumed run goes on where it stopped: the sampler's whole state is its
position, and groups that were dealt and not learned from; the checkpoint carries them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

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
        self._again: deque[Assignment] = deque()

    def deal(self, num_groups: int, group_size: int) -> list[Assignment]:
        """The next assignments."""
        return [self._again.popleft() if self._again else self._next(group_size) for _ in range(num_groups)]

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

    def get_state(self, pending: Sequence[Assignment] = ()) -> dict[str, Any]:
        """What a checkpoint keeps.

        Args:
            pending: groups that were dealt and not learned from.

        Returns:
            `position`, how many groups have been dealt, and `pending`, those to be dealt again, if there are any.
        """
        again = [asdict(assignment) for assignment in (*pending, *self._again)]
        return {"position": self._position} | ({"pending": again} if again else {})

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken: what was pending is dealt first."""
        self._position = state["position"]
        self._again = deque(Assignment(**fields) for fields in state.get("pending", ()))
