"""Dealing groups to environment runners until all have been played, whoever dies over it.

    assignments ──► shares, one a runner ──► results
                       ▲        │ the runner dies, or its engines do
                       └────────┘ played again: those of a runner that died alone each, so that the guilty one is found

A group during which a runner died twice is given up, and so is one that three times got no answers. The others lose
nothing but time. The results come in the order of the assignments, whoever played them when: the number of runners and
who is faster do not change what is learned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.orchestration.runners import Broke, Died, Runners
from proxmo_rllib.types import Assignment, Episode, Group

# A group during which so many runners died is given up.
MAX_DEATHS = 2
# And one that so often got no answers.
MAX_LOSSES = 3
_LOOK_EVERY_S = 1.0


class Played(Protocol):
    """What a runner's call returns first: see `SampleResult` and `PlayResult`."""

    @property
    def group_ids(self) -> tuple[str, ...]:
        """Groups that were played."""

    @property
    def lost(self) -> Any:
        """Why others were not, by their ids."""


#: What a runner does with its share and the seconds that are left; its first result is a `Played`.
Play = Callable[[Any, list[Assignment], float | None], tuple[Any, Any]]


@dataclass(slots=True)
class Dealt:
    """What became of the assignments.

    Attributes:
        results: of the calls, in the order of the first assignment of each.
        dropped: why groups were given up, by their ids.
    """

    results: list[tuple[Any, Any]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def groups(self, assignments: Sequence[Assignment], *, with_dropped: bool = False) -> list[Group]:
        """The groups that were played, in the order of the assignments.

        Args:
            assignments: all of them.
            with_dropped: those that were given up too, with episodes whose status is ERROR.
        """
        played = {group.group_id: group for result, _ in self.results for group in result.groups}
        if with_dropped:
            played |= {
                a.group_id: _given_up(a, self.dropped[a.group_id]) for a in assignments if a.group_id in self.dropped
            }
        return [played[a.group_id] for a in assignments if a.group_id in played]


def _given_up(assignment: Assignment, reason: str) -> Group:
    episodes = (Episode.broken(assignment, index, reason) for index in range(assignment.size))
    return Group(assignment.group_id, assignment.task, tuple(episodes))


class Dealer:
    """Has assignments played.

    Args:
        runners: the remote runners; None plays in this process with `local`.
        local: the runner of this process, or None.
        heal: replaces dead engines, and tells the runners.
        faults: is told of groups that are played again or given up.
    """

    def __init__(self, runners: Runners | None, local: Any, heal: Callable[[], None], faults: FaultLog) -> None:
        self._runners = runners
        self._local = local
        self._heal = heal
        self._faults = faults

    def play(self, assignments: Sequence[Assignment], play: Play, timeout_s: float | None = None) -> Dealt:
        """Plays all of them.

        Args:
            assignments: the groups.
            play: what a runner does with a share.
            timeout_s: seconds after which what has not ended is given up; None for never.

        Raises:
            RuntimeError: no environment runner is left.
            EngineDeadError: engines die again and again.
        """
        return _Round(self, assignments, play, timeout_s).run()


class _Round:
    """The state of one `Dealer.play`."""

    def __init__(self, dealer: Dealer, assignments: Sequence[Assignment], play: Play, timeout_s: float | None) -> None:
        self._runners, self._local = dealer._runners, dealer._local
        self._heal, self._faults = dealer._heal, dealer._faults
        self._play = play
        self._order = {assignment.group_id: place for place, assignment in enumerate(assignments)}
        self._todo: deque[list[Assignment]] = deque()
        self._deal(list(assignments))
        self._deaths: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._ended: list[tuple[int, tuple[Any, Any]]] = []
        self._dropped: dict[str, str] = {}
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s

    def run(self) -> Dealt:
        self._heal()
        if self._runners is None:
            while self._todo:
                share = self._todo.popleft()
                self._take(share, self._play(self._local, share, self._left()))
        else:
            self._run_remotely(self._runners)
        self._ended.sort(key=lambda entry: entry[0])
        return Dealt([result for _, result in self._ended], self._dropped)

    def _run_remotely(self, runners: Runners) -> None:
        busy: dict[ray.ObjectRef, tuple[int, list[Assignment]]] = {}
        while self._todo or busy:
            idle = [number for number in runners.healthy() if number not in {n for n, _ in busy.values()}]
            if not busy and not idle:
                idle = runners.wait_for_one()
            while self._todo and idle:
                number, share = idle.pop(0), self._todo.popleft()
                busy[runners.call(number, self._player(share))] = number, share
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=_LOOK_EVERY_S)
            for call in ready:
                number, share = busy.pop(call)
                result = runners.result(number, call)
                if isinstance(result, Died):
                    self._on_death(number, share, result.detail)
                elif isinstance(result, Broke):
                    self._on_loss(share, dict.fromkeys((a.group_id for a in share), result.reason))
                else:
                    self._take(share, result)

    def _player(self, share: list[Assignment]) -> Callable[[Any], Any]:
        play, left = self._play, self._left()
        return lambda runner: play(runner, share, left)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _deal(self, assignments: list[Assignment]) -> None:
        """One share a runner."""
        if not assignments:
            return
        count = 1 if self._runners is None else max(1, len(self._runners.healthy()))
        for place in range(min(count, len(assignments))):
            self._todo.append(assignments[place::count])

    def _take(self, share: list[Assignment], result: tuple[Any, Any]) -> None:
        """Notes what was played, and has the rest played again."""
        played: Played = result[0]
        done = set(played.group_ids)
        if done:
            self._ended.append((min(self._order[group_id] for group_id in done), result))
        self._on_loss([a for a in share if a.group_id not in done], played.lost)

    def _on_death(self, number: int, share: list[Assignment], detail: str) -> None:
        """A runner died over its share.

        Any of the groups may have killed it, so each is played alone from now on; unless its environment was seen not
        to return, and with which task.
        """
        guilty = [assignment for assignment in share if detail == f"of task {assignment.task!r}"]
        if guilty:
            for assignment in guilty:
                self._drop(assignment, "its environment did not return (env_call_timeout_s)")
            innocent = [assignment for assignment in share if assignment not in guilty]
            self._again(innocent, f"environment runner {number} was lost")
            self._deal(innocent)
            return
        again = []
        for assignment in share:
            key = assignment.group_id
            alone = len(share) == 1
            # Of several groups nobody knows which one it was.
            self._deaths[key] = self._deaths.get(key, 0) + 1
            if alone and self._deaths[key] >= MAX_DEATHS:
                self._drop(assignment, f"environment runners died {self._deaths[key]} times while they played it")
            else:
                again.append(assignment)
        self._again(again, f"environment runner {number} was lost")
        self._todo.extend([assignment] for assignment in again)

    def _on_loss(self, assignments: Iterable[Assignment], reasons: Any) -> None:
        """Groups did not get their answers: the engines are mended, and the groups played again."""
        again = []
        reason = ""
        for assignment in assignments:
            key = assignment.group_id
            reason = reasons.get(key, reason or "no reason was given")
            self._losses[key] = self._losses.get(key, 0) + 1
            if self._is_late():
                self._drop(assignment, f"it had not ended after {self._timeout_s:g} s (sample_timeout_s)")
            elif self._losses[key] >= MAX_LOSSES:
                self._drop(assignment, f"it was lost {self._losses[key]} times; the last reason: {reason}")
            else:
                again.append(assignment)
        if not again:
            return
        self._heal()
        self._again(again, reason)
        last_try = [a for a in again if self._losses[a.group_id] == MAX_LOSSES - 1]
        self._todo.extend([assignment] for assignment in last_try)  # alone: one of them may be what kills the engines
        self._deal([assignment for assignment in again if assignment not in last_try])

    def _again(self, assignments: Sequence[Assignment], reason: str) -> None:
        if assignments:
            many = f"{len(assignments)} groups are" if len(assignments) > 1 else "1 group is"
            self._faults.report("group_replayed", f"{many} played again: {reason}.", len(assignments))

    def _drop(self, assignment: Assignment, reason: str) -> None:
        self._dropped[assignment.group_id] = reason
        self._faults.report("group_dropped", f"The group of task {assignment.task!r} is given up: {reason}.")
