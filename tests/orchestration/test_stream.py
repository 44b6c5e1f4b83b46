"""Groups that are played ahead: each is learned from once and never too old, whoever dies over it. No Ray."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.orchestration.runners import Broke, Died
from proxmo_rllib.orchestration.stream import AllGroupsLostError, GroupStream, Taken
from proxmo_rllib.rollouts.background_play import PlayedSoFar
from proxmo_rllib.types import Assignment, Episode, Group, Status, Turn

TOKENS = np.zeros(2, np.int32)


def turn(version: int, changes: tuple[tuple[int, int], ...] = ()) -> Turn:
    return Turn(TOKENS, False, TOKENS, np.zeros(2, np.float32), version, "", "", "", True, 0.0, changes)


class Runner:
    """Plays in steps: a group takes as many as `length` says, each sampled by the weights of that time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.groups: dict[str, tuple[Assignment, list[int]]] = {}

    def play_on(self, assignments: Sequence[Assignment], *, wait_s: float, anew: bool = False) -> PlayedSoFar:
        if anew:
            self.groups.clear()
        self.groups |= {a.group_id: (a, []) for a in assignments}
        ended, lost = [], {}
        for group_id, (assignment, versions) in [*self.groups.items()]:
            versions.append(self.world.version)
            if len(versions) < self.world.length(assignment):
                continue
            del self.groups[group_id]
            if (reason := self.world.loses(assignment)) is not None:
                lost[group_id] = reason
            else:
                ended.append(self.world.group(assignment, versions))
        return PlayedSoFar(tuple(ended), lost, frozenset(self.groups))


class World:
    """Runners, weights and tasks of a stream; in the place of `Runners` too."""

    def __init__(self, num_runners: int = 2, batch: int = 4, max_staleness: int = 1) -> None:
        self.version = 0
        self.length: Callable[[Assignment], int] = lambda assignment: 2
        self.loses: Callable[[Assignment], str | None] = lambda assignment: None
        self.status: Callable[[Assignment], Status] = lambda assignment: Status.SUCCESS
        self.dies: Callable[[int, Runner], Any] = lambda number, runner: None
        self.runners = {number: Runner(self) for number in range(1, num_runners + 1)}
        self.faults = FaultLog()
        self.heals = 0
        self.dealt: list[str] = []
        self.most_ahead = 0
        self.stream = GroupStream(
            self,
            self.deal,
            self.heal,
            self.faults,
            batch=batch,
            max_staleness=max_staleness,  # type: ignore[arg-type]
        )
        self.stream.updated(0)

    def deal(self, count: int) -> list[Assignment]:
        new = [Assignment(f"g{len(self.dealt) + i}", f"task-{len(self.dealt) + i}", 0, 2) for i in range(count)]
        self.dealt += [assignment.group_id for assignment in new]
        return new

    def heal(self) -> None:
        self.heals += 1

    def group(self, assignment: Assignment, versions: list[int]) -> Group:
        status = self.status(assignment)
        episodes = tuple(
            Episode(
                f"{assignment.group_id}-{index}",
                assignment.group_id,
                assignment.task,
                "",
                0,
                tuple(turn(version) for version in versions),
                status,
                error="it broke" if status is Status.ERROR else None,
            )
            for index in range(2)
        )
        return Group(assignment.group_id, assignment.task, episodes)

    def handles(self) -> dict[int, Runner]:
        return self.runners

    def healthy(self) -> list[int]:
        return [*self.runners]

    def call(self, number: int, function: Callable[[Any], Any]) -> Any:
        return number, function

    def first_of(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        self.most_ahead = max(self.most_ahead, len(self.stream.pending))
        return [calls[0]]

    def result(self, number: int, call: Any) -> Any:
        runner = self.runners[number]
        outcome = self.dies(number, runner)
        if outcome is None:
            return call[1](runner)
        if isinstance(outcome, Died):
            self.runners[number] = Runner(self)
        return outcome

    def learn(self, iterations: int) -> list[Taken]:
        taken = []
        for _ in range(iterations):
            taken.append(self.stream.take())
            self.version += 10  # optimizer steps
            self.stream.updated(self.version)
        return taken


def ids(taken: Sequence[Taken]) -> list[str]:
    return [group.group_id for each in taken for group in each.groups]


@pytest.mark.parametrize("max_staleness", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_group_is_learned_from_once_and_no_token_is_too_old(seed: int, max_staleness: int):
    """Episodes of very different lengths, two runners, one of which dies now and then."""
    rng = random.Random(seed)
    world = World(max_staleness=max_staleness)
    lengths = {f"g{i}": rng.choice([1, 2, 3, 40]) for i in range(1000)}
    world.length = lambda assignment: lengths[assignment.group_id]
    world.dies = lambda number, runner: Died("") if rng.random() < 0.003 else None
    taken = world.learn(30)
    learned = ids(taken)
    assert [len(each.groups) for each in taken] == [4] * 30
    assert len({*learned}) == len(learned)
    given_up = {*world.stream._tries.dropped}
    assert len(given_up) <= 4, "only what a runner died over twice"
    assert {*learned} | {a.group_id for a in world.stream.pending} | given_up == {*world.dealt}, "a task is lost"
    assert max(each.staleness.max for each in taken) <= max_staleness
    assert all(each.num_stale == 0 for each in taken)
    assert world.most_ahead <= (1 + max_staleness) * 4
    assert learned == [group_id for group_id in world.dealt if group_id in {*learned}], "not in the order of dealing"


def test_staleness_is_counted_in_updates_and_by_the_token():
    world = World(num_runners=1, batch=1, max_staleness=2)
    world.length = lambda assignment: 1
    first, _, third = world.learn(3)
    assert (first.staleness.max, first.staleness.mean) == (0, 0.0)
    assert third.staleness.max == 2
    group = world.group(Assignment("x", "t", 0, 2), [])
    mixed = Episode("x-0", "x", "t", "", 0, (turn(10, ((1, 30),)),), Status.SUCCESS)
    assert [*mixed.versions()] == [(10, 1), (30, 1)]
    found = world.stream._staleness([Group("x", "t", (mixed, *group.episodes))])
    assert (found.max, found.mean) == (2, 1.0)


@pytest.mark.parametrize("max_staleness", [1, 3])
def test_what_is_played_ahead_is_bounded(max_staleness: int):
    world = World(max_staleness=max_staleness)
    world.learn(1)
    assert len(world.dealt) == (2 + max_staleness) * 4
    assert len(world.stream.pending) == (1 + max_staleness) * 4


def test_broken_groups_and_those_that_are_lost_again_and_again_are_replaced_and_said():
    world = World()
    world.status = lambda a: Status.ERROR if a.task == "task-1" else Status.SUCCESS
    world.loses = lambda a: "no answer" if a.task == "task-2" else None
    taken = world.learn(3)
    assert "g1" not in ids(taken)
    assert "g2" not in ids(taken)
    assert [len(each.groups) for each in taken] == [4, 4, 4]
    assert [group.group_id for each in taken for group in each.broken] == ["g1"]
    assert [reason for each in taken for reason in each.reasons] == ["it was lost 3 times; the last reason: no answer"]
    assert world.faults.counts["group_replayed"] == 2
    assert world.faults.counts["group_dropped"] == 1
    assert world.heals > 3


def test_a_group_that_kills_its_runner_is_found_and_the_others_are_played():
    """After the first death each of that runner's groups is played alone."""
    world = World()
    world.dies = lambda number, runner: Died("") if "g5" in runner.groups else None
    taken = world.learn(5)
    assert "g5" not in ids(taken)
    assert {*ids(taken)} >= {f"g{i}" for i in range(12) if i != 5}
    (reason,) = [reason for each in taken for reason in each.reasons]
    assert "times while they played it" in reason


def test_a_runner_that_was_started_again_unseen_gets_its_groups_again():
    world = World()
    world.length = lambda assignment: 5
    for _ in range(2):
        world.stream._hand_out()
        world.stream._collect([])
    world.runners[1] = Runner(world)
    assert len(ids(world.learn(4))) == 16
    assert world.faults.counts["group_replayed"] > 0


def test_a_call_that_raises_costs_a_runner_its_groups_and_they_are_played_again():
    world = World()
    calls = iter([None, Broke("TypeError: x"), *[None] * 1000])
    world.dies = lambda number, runner: next(calls)
    assert sorted(ids(world.learn(2))) == [f"g{i}" for i in range(8)]
    assert world.faults.counts["group_replayed"] > 0


def test_what_was_forgotten_is_not_learned_from():
    world = World()
    world.length = lambda assignment: 3
    world.learn(1)
    pending = {a.group_id for a in world.stream.pending}
    world.stream.forget()
    assert world.stream.pending == []
    assert not pending & {*ids(world.learn(3))}


def test_a_run_all_of_whose_groups_break_ends_with_the_reason():
    world = World()
    world.status = lambda assignment: Status.ERROR
    with pytest.raises(AllGroupsLostError, match=r"groups in a row .* The first reason of \d+: it broke"):
        world.learn(1)


def test_a_run_all_of_whose_groups_are_too_old_ends_with_the_remedy():
    """As when an engine serves weights that it was told to forget."""
    world = World()
    world.learn(3)
    world.group = lambda a, versions: World.group(world, a, [0])  # type: ignore[method-assign]
    with pytest.raises(AllGroupsLostError, match=r"older than max_staleness=1 .* raise max_staleness, or set it to 0"):
        world.learn(2)
