"""An iteration has the groups that it should, or says what it lacks; nothing depends on who played them. No Ray."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.curriculum import TaskSampler
from proxmo_rllib.orchestration.collecting import Collection
from proxmo_rllib.orchestration.dealing import Dealt
from proxmo_rllib.rollouts.env_runner import SampleResult
from proxmo_rllib.types import Assignment, Group

TASKS = [f"task-{index}" for index in range(50)]
MIXED, SOLVED, FAILED = [True, False, False, True], [True] * 4, [False] * 4


class Iterations:
    """Plays iterations of 4 groups with so many runners, which end in any order."""

    def __init__(
        self,
        config: ProxMOConfig,
        make_group: Callable[..., Group],
        results_of: Callable[[Assignment], list[bool] | None],
        num_runners: int = 1,
        least: int = 1,
    ) -> None:
        self.sampler = TaskSampler.of(config, TASKS)
        self.rounds: list[int] = []
        self._make_group, self._results_of = make_group, results_of
        self._num_runners, self._least = num_runners, least

    def iterate(self) -> tuple[list[str], Collection]:
        """Ids of the groups that are learned from."""
        collection = Collection(self.sampler, 4, 4, self._least)
        while assignments := collection.deal():
            self.rounds.append(len(assignments))
            collection.add(assignments, self._play(assignments))
        return [group.group_id for group in collection.groups()], collection

    def _play(self, assignments: Sequence[Assignment]) -> Dealt:
        shares = [list(assignments[place :: self._num_runners]) for place in range(self._num_runners)]
        random.Random(len(self.rounds)).shuffle(shares)
        return Dealt([(self._result(share), None) for share in shares])

    def _result(self, share: list[Assignment]) -> SampleResult:
        played = {a.group_id: (a, self._results_of(a)) for a in reversed(share)}
        groups = tuple(self._make_group(a, results) for a, results in played.values() if results)
        errors = tuple(f"{a.task}: it broke" for a, results in played.values() if not results)
        return SampleResult(tuple(played), {}, groups, errors, groups[:1])


@pytest.fixture
def start(config: ProxMOConfig, make_group: Callable[..., Group]) -> Callable[..., Iterations]:
    def start(results_of: Callable[[Assignment], list[bool] | None], **options: Any) -> Iterations:
        made = {key: options.pop(key) for key in ("num_runners", "least") if key in options}
        return Iterations(config.curriculum(**options), make_group, results_of, **made)

    return start


def by_task(assignment: Assignment) -> list[bool]:
    """Two thirds of the tasks are always or never solved."""
    return [MIXED, SOLVED, FAILED][int(assignment.task.split("-")[1]) % 3]


def test_without_a_curriculum_there_is_one_round_of_all_groups(start):
    run = start(by_task)
    assert run.iterate()[0] == ["0-0", "0-1", "0-2", "0-3"]
    kept, collection = run.iterate()
    assert kept == ["0-4", "0-5", "0-6", "0-7"]
    assert run.rounds == [4, 4]
    assert collection.metrics() == {}
    assert collection.num_broken == 0


def test_groups_without_contrast_are_replaced_by_the_tasks_that_come_next(start, caplog):
    run = start(by_task, dynamic_sampling={"name": "outcome", "at_most": 10})
    plain = [a.task for a in start(by_task, dynamic_sampling="none").sampler.deal(100, 4)]
    learned = []
    for _ in range(3):
        kept, collection = run.iterate()
        assert len(kept) == 4
        assert collection.metrics()["num_groups_missing"] == 0
        learned += kept
    played = run.sampler.get_state()["position"]
    expected = [f"0-{place}" for place in range(played) if int(plain[place].split("-")[1]) % 3 == 0]
    assert learned == expected, "a task was played twice, or left out"
    assert caplog.text == ""


@pytest.mark.parametrize("order", ["epochs", {"name": "success_rate", "min_episodes": 4}])
@pytest.mark.parametrize("num_runners", [2, 3, 7])
def test_the_number_of_runners_and_who_ends_first_change_nothing(start, order, num_runners):
    words = {"task_order": order, "dynamic_sampling": "outcome", "horizon": "by_success"}
    one, many = (start(by_task, num_runners=number, **words) for number in (1, num_runners))
    for _ in range(6):
        (kept, alone), (same, shared) = one.iterate(), many.iterate()
        assert kept == same
        assert alone.metrics() == shared.metrics()
    assert one.sampler.get_state() == many.sampler.get_state()


def test_at_the_bound_it_goes_on_with_what_it_has_and_says_so(start, caplog):
    run = start(
        lambda a: MIXED if a.group_id == "0-5" else FAILED, dynamic_sampling={"name": "outcome", "at_most": 2.5}
    )
    with caplog.at_level(logging.WARNING):
        kept, collection = run.iterate()
    assert kept == ["0-5"]
    assert run.rounds == [4, 4, 2], "10 are two and a half times 4"
    assert collection.metrics() == {
        "num_groups_played": 10,
        "num_groups_without_contrast": 9,
        "num_groups_missing": 3,
    }
    assert "Of 10 groups played, 1 have something to learn from: the iteration goes on with 1 of 4" in caplog.text


def test_where_nothing_is_to_be_learned_there_is_no_group_and_in_the_end_an_error(start, caplog):
    run = start(lambda a: FAILED, dynamic_sampling={"name": "outcome", "at_most": 1})
    for number in range(5):
        assert run.iterate()[0] == [], number
    assert caplog.text.count("takes no optimizer step") == 5
    with pytest.raises(RuntimeError, match="dynamic_sampling: the last 20 groups had nothing to learn from"):
        run.iterate()
    assert len(run.rounds) == 5


def test_learners_that_would_have_no_group_get_one_without_contrast(start):
    run = start(
        lambda a: MIXED if a.group_id == "0-2" else SOLVED,
        least=3,
        dynamic_sampling={"name": "outcome", "at_most": 1},
    )
    assert run.iterate()[0] == ["0-2", "0-0", "0-1"]
    assert run.iterate()[0] == []


@pytest.mark.parametrize("word", ["none", "outcome"])
def test_what_broke_is_counted_apart_and_too_much_of_it_ends_the_run(start, word):
    run = start(lambda a: None if a.group_id in ("0-0", "0-3") else MIXED, dynamic_sampling=word)
    kept, collection = run.iterate()
    assert kept == (["0-1", "0-2"] if word == "none" else ["0-1", "0-2", "0-4", "0-5"])
    assert collection.num_broken == 2
    assert collection.metrics().get("num_groups_without_contrast", 0) == 0
    broken = start(lambda a: None, dynamic_sampling=word)
    dealt = 4 if word == "none" else 12
    with pytest.raises(
        RuntimeError, match=f"Only 0 of {dealt} groups are whole.* first reason of {dealt}: task-.*broke"
    ):
        broken.iterate()


def test_the_run_s_record_has_groups_of_the_first_round_whatever_they_came_to(start):
    run = start(by_task, dynamic_sampling={"name": "outcome", "at_most": 10}, num_runners=2)
    _, collection = run.iterate()
    assert len(run.rounds) > 1
    assert {group.group_id for group in collection.records} <= {"0-0", "0-1", "0-2", "0-3"}
    assert len(collection.records) == 2, "one a runner"
