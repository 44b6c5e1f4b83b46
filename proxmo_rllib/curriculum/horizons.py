"""Horizons: the full one, or one that starts short and grows. An evaluation always has the full one.

A short horizon costs less to play, and with it an early mistake is not followed by fifty turns of noise. What cannot be
solved within it looks like a failure meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxmo_rllib.curriculum.parts import Context, GroupOutcome, Horizon
from proxmo_rllib.curriculum.registry import register_horizon


@register_horizon("full")
class Full(Horizon):
    """`max_turns`, always."""

    def __init__(self, context: Context) -> None:
        pass

    def turns(self) -> None:
        return None


class Growing(Horizon):
    """One that starts at `start` turns and ends at `max_turns`."""

    def __init__(self, context: Context, start: int, step: int) -> None:
        if start > context.max_turns:
            raise ValueError(f"start={start!r}: max_turns={context.max_turns} is the full horizon; start below it.")
        self._start, self._step, self._most = start, step, context.max_turns

    def metrics(self) -> Mapping[str, float]:
        return {"horizon": float(self.turns() or self._most)}


@register_horizon("by_iterations")
class ByIterations(Growing):
    """Grows by `step` turns every so many iterations.

    Groups that ended are counted, those that dynamic sampling left out too: `num_groups` of them are an iteration.

    Args:
        context: the run.
        start: turns of the first episodes.
        step: turns by which it grows.
        every: iterations after which it does.
    """

    def __init__(self, context: Context, *, start: int = 5, step: int = 5, every: int = 10) -> None:
        super().__init__(context, start, step)
        self._every = every * context.num_groups
        self._ended = 0

    def turns(self) -> int:
        return min(self._most, self._start + self._step * (self._ended // self._every))

    def ended(self, outcome: GroupOutcome) -> None:
        self._ended += 1

    def get_state(self) -> dict[str, Any]:
        return {"ended": self._ended}

    def set_state(self, state: dict[str, Any]) -> None:
        self._ended = state["ended"]


@register_horizon("by_success")
class BySuccess(Growing):
    """Grows by `step` turns when enough is solved within it.

    Args:
        context: the run.
        start: turns of the first episodes. What takes more turns is never solved, and nothing grows then.
        step: turns by which it grows.
        success: share of the episodes of the last groups that has to be solved.
        groups: the last groups that were dealt with the present horizon; all of them have to be there.
    """

    def __init__(
        self, context: Context, *, start: int = 5, step: int = 5, success: float = 0.5, groups: int = 16
    ) -> None:
        super().__init__(context, start, step)
        self._success, self._groups = success, groups
        self._turns = start
        self._recent: list[tuple[int, int]] = []  # successes and episodes

    def turns(self) -> int:
        return min(self._most, self._turns)

    def ended(self, outcome: GroupOutcome) -> None:
        if outcome.max_turns != self.turns():
            return  # dealt before it grew
        self._recent = [*self._recent, (outcome.successes, outcome.episodes)][-self._groups :]
        solved, played = (sum(numbers) for numbers in zip(*self._recent, strict=True))
        if len(self._recent) == self._groups and solved >= self._success * played:
            self._turns = min(self._most, self._turns + self._step)
            self._recent = []

    def get_state(self) -> dict[str, Any]:
        return {"turns": self._turns, "recent": [list(counts) for counts in self._recent]}

    def set_state(self, state: dict[str, Any]) -> None:
        self._turns = state["turns"]
        self._recent = [(solved, played) for solved, played in state["recent"]]
