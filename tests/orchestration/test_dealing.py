"""Every assignment is played, or given up with a reason, in the order of the assignments. No Ray: one local runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from env_wrappers.panels import Panel
from proxmo_rllib.evaluation.panels import panel_assignments
from proxmo_rllib.faults import FaultLog
from proxmo_rllib.orchestration.dealing import Dealer, Dealt
from proxmo_rllib.orchestration.tries import MAX_LOSSES
from proxmo_rllib.rollouts.play import PlayResult
from proxmo_rllib.types import Assignment, Episode, Group, Status


def assigned(*tasks: str) -> list[Assignment]:
    return panel_assignments(Panel("panel", 1, "env", {}, tasks), repeats=1)


def played(assignment: Assignment) -> Group:
    episode = Episode(f"{assignment.group_id}-0", assignment.group_id, assignment.task, "", 0, (), Status.SUCCESS)
    return Group(assignment.group_id, assignment.task, (episode,))


class Table:
    """Plays in this process; `loses` says which tasks of a call get no answers."""

    def __init__(self, loses: Callable[[int, Sequence[Assignment]], set[str]]) -> None:
        self.rounds: list[list[str]] = []
        self.heals = 0
        self.seconds: list[float | None] = []
        self.faults = FaultLog()
        self._loses = loses

    def _play(self, runner: None, share: Sequence[Assignment], seconds: float | None) -> tuple[PlayResult, None]:
        self.rounds.append([assignment.task for assignment in share])
        self.seconds.append(seconds)
        lost = self._loses(len(self.rounds), share)
        groups = tuple(played(a) for a in reversed(share) if a.task not in lost)
        return PlayResult(groups, {a.group_id: f"no answer for {a.task}" for a in share if a.task in lost}), None

    def _heal(self) -> None:
        self.heals += 1

    def play(self, assignments: list[Assignment], timeout_s: float | None = None) -> Dealt:
        return Dealer(None, None, self._heal, self.faults).play(assignments, self._play, timeout_s)


def test_what_was_lost_is_played_again_and_comes_in_the_order_of_the_assignments():
    """A task may stand on a panel twice."""
    table = Table(lambda number, share: {"a"} if number == 1 else set())
    assignments = assigned("a", "b", "a")
    dealt = table.play(assignments)
    assert [group.task for group in dealt.groups(assignments)] == ["a", "b", "a"]
    assert [group.group_id for group in dealt.groups(assignments)] == ["panel-0", "panel-1", "panel-2"]
    assert table.rounds == [["a", "b", "a"], ["a", "a"]]
    assert table.heals == 2, "before the first, and before it is tried again"
    assert dealt.dropped == {}
    assert table.faults.counts["group_replayed"] == 2


def test_what_gets_no_answer_at_all_is_given_up_with_its_reason_and_the_others_are_not():
    """The last time alone: one of them may be what kills the engine, and then all that were in it are lost."""
    table = Table(lambda number, share: {a.task for a in share} if any(a.task == "b" for a in share) else set())
    assignments = assigned("a", "b", "c")
    dealt = table.play(assignments)
    assert table.rounds == [["a", "b", "c"], ["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [group.task for group in dealt.groups(assignments)] == ["a", "c"]
    reason = f"it was lost {MAX_LOSSES} times; the last reason: no answer for b"
    assert dealt.dropped == {"panel-1": reason}
    _, broken, _ = dealt.groups(assignments, with_dropped=True)
    assert [episode.status for episode in broken.episodes] == [Status.ERROR]
    assert broken.episodes[0].error == f"task 'b': {reason}"


def test_after_the_deadline_nothing_is_played_again():
    table = Table(lambda number, share: {"b"})
    dealt = table.play(assigned("a", "b"), timeout_s=0.0)
    assert table.rounds == [["a", "b"]]
    assert table.seconds == [0.0]
    assert dealt.dropped == {"panel-1": "it had not ended after 0 s (sample_timeout_s)"}


def test_without_a_deadline_a_runner_has_none():
    table = Table(lambda number, share: set())
    table.play(assigned("a"))
    assert table.seconds == [None]


@pytest.mark.parametrize("tasks", [(), ("a",)])
def test_no_more_calls_than_groups(tasks: tuple[str, ...]):
    table = Table(lambda number, share: set())
    assignments = assigned(*tasks)
    assert [group.task for group in table.play(assignments).groups(assignments)] == list(tasks)
    assert table.rounds == [[task] for task in tasks]
