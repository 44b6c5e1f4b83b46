"""Task orders: pass after pass through the split, whole or without what is too hard or too easy now."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from proxmo_rllib.curriculum.parts import Context, GroupOutcome, TaskOrder
from proxmo_rllib.curriculum.registry import register_task_order

# Tasks whose counts are kept: those that were played longest ago are forgotten, and count as unknown.
_MOST_KNOWN = 100_000
# Tasks that are passed over in a row at most.
_MOST_PASSED_OVER = 1_000


@register_task_order("epochs")
class Epochs(TaskOrder):
    """A seeded shuffle of the split, gone through again and again, each time in another order."""

    def __init__(self, context: Context) -> None:
        self._tasks = list(context.tasks)
        self._seed = context.seed
        self._shuffled: tuple[int, list[int]] | None = None

    def task(self, position: int) -> str:
        return self._at(position)

    def _at(self, place: int) -> str:
        """The task at a place of all passes, one after the other."""
        epoch, index = divmod(place, len(self._tasks))
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = list(range(len(self._tasks)))
            random.Random(f"tasks-{self._seed}-{epoch}").shuffle(order)
            self._shuffled = (epoch, order)
        return self._tasks[self._shuffled[1][index]]


@register_task_order("success_rate")
class SuccessRate(Epochs):
    """As `Epochs`, but a task that is solved too seldom or too often is passed over, and only now and then played.

    A task's success rate is that of its last plays; an older one counts less by `decay` for each group of the task that
    was played since. A task of which little is known is played as always.

    Args:
        context: the run.
        low: success rate below which a task is too hard.
        high: success rate above which it is too easy.
        outside: with which probability a task outside is played all the same when its turn comes.
        decay: of a task's earlier episodes when a group of it ends.
        min_episodes: what a task's episodes have to be worth before it may be passed over.
    """

    def __init__(
        self,
        context: Context,
        *,
        low: float = 0.1,
        high: float = 0.9,
        outside: float = 0.1,
        decay: float = 0.5,
        min_episodes: int = 8,
    ) -> None:
        super().__init__(context)
        if low > high:
            raise ValueError(f"low={low!r}: it is above high={high!r}, and no task would be within.")
        self._low, self._high, self._outside = low, high, outside
        self._decay, self._min_episodes = decay, min_episodes
        self._passed_over = 0
        self._known: dict[str, tuple[float, float]] = {}  # successes and episodes, the one played last at the end

    def task(self, position: int) -> str:
        for _ in range(min(_MOST_PASSED_OVER, len(self._tasks))):
            place = position + self._passed_over
            task = self._at(place)
            if self._is_within(task) or random.Random(f"outside-{self._seed}-{place}").random() < self._outside:
                return task
            self._passed_over += 1
        return self._at(position + self._passed_over)

    def _is_within(self, task: str) -> bool:
        rate = self._rate(*self._known.get(task, (0.0, 0.0)))
        return rate is None or self._low <= rate <= self._high

    def _rate(self, successes: float, episodes: float) -> float | None:
        return successes / episodes if episodes >= self._min_episodes else None

    def ended(self, outcome: GroupOutcome) -> None:
        successes, episodes = self._known.pop(outcome.task, (0.0, 0.0))
        self._known[outcome.task] = (
            self._decay * successes + outcome.successes,
            self._decay * episodes + outcome.episodes,
        )
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def metrics(self) -> Mapping[str, float]:
        found = (self._rate(*counts) for counts in self._known.values())
        rates = [rate for rate in found if rate is not None]
        return {
            "num_tasks_known": len(rates),
            "num_tasks_too_hard": sum(rate < self._low for rate in rates),
            "num_tasks_too_easy": sum(rate > self._high for rate in rates),
            "num_tasks_passed_over": self._passed_over,
        }

    def get_state(self) -> dict[str, Any]:
        return {"passed_over": self._passed_over, "known": {task: list(c) for task, c in self._known.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        self._passed_over = state["passed_over"]
        self._known = {task: (counts[0], counts[1]) for task, counts in state["known"].items()}
