"""Dealing groups to environment runners until all have been played, whoever dies over it.

    assignments ──► shares, one a runner ──► results
                       ▲        │ the runner dies, or its engines do
                       └────────┘ played again: those of a runner that died alone each, so that the guilty one is found

What is played again, and how often, is in `tries.py`. The results come in the order of the assignments, whoever played
them when: the number of runners and who is faster do not change what is learned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.orchestration.runners import Broke, Died, Runners
from proxmo_rllib.orchestration.tries import Again, Tries
from proxmo_rllib.types import Assignment, Episode, Group

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
        self._heal = dealer._heal
        self._tries = Tries(dealer._faults)
        self._play = play
        self._order = {assignment.group_id: place for place, assignment in enumerate(assignments)}
        self._todo: deque[list[Assignment]] = deque()
        self._deal(list(assignments))
        self._ended: list[tuple[int, tuple[Any, Any]]] = []
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
        return Dealt([result for _, result in self._ended], self._tries.dropped)

    def _run_remotely(self, runners: Runners) -> None:
        busy: dict[ray.ObjectRef, tuple[int, list[Assignment]]] = {}
        while self._todo or busy:
            playing = {number for number, _ in busy.values()}
            idle = [number for number in runners.healthy() if number not in playing]
            if not busy and not idle:
                idle = runners.wait_for_one()
            while self._todo and idle:
                number, share = idle.pop(0), self._todo.popleft()
                busy[runners.call(number, self._player(share))] = number, share
            for call in runners.first_of(list(busy), _LOOK_EVERY_S):
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
        self._play_again(self._tries.after_death(number, share, detail))

    def _on_loss(self, assignments: Sequence[Assignment], reasons: Mapping[str, str]) -> None:
        """Groups did not get their answers: the engines are mended, and the groups played again."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        reason = f"it had not ended after {self._timeout_s:g} s (sample_timeout_s)" if late else None
        again = self._tries.after_loss(assignments, reasons, reason)
        if again.together or again.alone:
            self._heal()
        self._play_again(again)

    def _play_again(self, again: Again) -> None:
        self._todo.extend([assignment] for assignment in again.alone)
        self._deal(again.together)
