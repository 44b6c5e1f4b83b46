"""A panel's result: what is counted, and that every policy meets the same initial states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from env_wrappers.panels import Panel
from proxmo_rllib.evaluation import PanelResult, panel_assignments, summarise, wilson_interval
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.training_run import PanelScore
from proxmo_rllib.types import Episode, Group, Status, Turn

PANEL = Panel("test", 1, "env_wrappers/ALFWorld-v0", {}, ("a", "b", "c"))


def episode(name: str, status: Status, kind: str, turns: int = 1, reward: float = 0.0, valid: bool = True) -> Episode:
    turn = Turn(
        context_ids=np.asarray([1], np.int32),
        appended=False,
        response_ids=np.asarray([2], np.int32),
        logprobs=np.zeros(1, np.float32),
        policy_version=0,
        anchor="",
        response="",
        action="",
        action_valid=valid,
        reward=reward,
    )
    return Episode(f"{name}-0", name, name, kind, 0, (turn,) * turns, status, error="broken")


def test_the_summary_counts_what_was_played_and_leaves_errors_out():
    episodes = [
        episode("a", Status.SUCCESS, "pick", turns=2, reward=0.5),
        episode("b", Status.FAILURE, "pick", turns=4, valid=False),
        episode("c", Status.TRUNCATED, "heat", turns=6, reward=-1.0),
        episode("d", Status.ERROR, "heat", turns=100, reward=100.0),
    ]
    result = summarise(PANEL, [Group(e.group_id, e.task, (e,)) for e in episodes], seconds=3.0)
    assert (result.overall.successes, result.overall.episodes, result.num_errors) == (1, 3, 1)
    assert {kind: (rate.successes, rate.episodes) for kind, rate in result.by_task_type.items()} == {
        "pick": (1, 2),
        "heat": (0, 1),
    }
    assert result.mean_turns == 4.0
    assert result.mean_return == pytest.approx((1.0 + 0.0 - 6.0) / 3)
    assert result.invalid_action_rate == pytest.approx(4 / 12)
    assert result.panel.startswith("test@")
    metrics = result.as_metrics()
    assert metrics["success_low"] < metrics["success_rate"] == 1 / 3 < metrics["success_high"]
    pick, heat = metrics["by_task_type"]["pick"], metrics["by_task_type"]["heat"]
    assert (pick["success_rate"], pick["num_episodes"], heat["success_rate"]) == (0.5, 2, 0.0)
    assert (pick["success_low"], pick["success_high"]) == wilson_interval(1, 2)
    assert metrics["env_runners"]["episode_return_mean"] == result.mean_return
    assert str(result.overall).startswith("33.3% [")


def test_a_result_says_what_it_lacks_of_the_panel_and_why():
    groups = [
        Group("test-0", "a", (episode("a", Status.SUCCESS, "pick"), episode("a", Status.ERROR, "pick"))),
        Group("test-1", "b", (episode("b", Status.ERROR, "heat"), episode("b", Status.ERROR, "heat"))),
    ]
    result = summarise(PANEL, groups, seconds=1.0, lost={"test-2": "the engine is dead"})
    assert (result.overall.successes, result.overall.episodes) == (1, 1)
    assert result.shortfall == "1 tasks could not be played and 3 episodes broke; the first reason: broken"
    metrics = result.as_metrics()
    assert (metrics["num_missing_tasks"], metrics["num_errors"]) == (1, 3)
    heat = metrics["by_task_type"]["heat"]  # all of it broke: no rate, and not left out without a word
    assert math.isnan(heat["success_rate"])
    assert (heat["num_episodes"], heat["success_low"], heat["success_high"]) == (0, 0.0, 1.0)
    score = PanelScore.from_metrics(metrics)
    assert score is not None
    assert str(score).endswith("(1/1, 3 broke)")
    assert flatten(metrics)["by_task_type/heat/success_rate"] is None
    whole = summarise(PANEL, [Group(n, n, (episode(n, Status.FAILURE, ""),)) for n in "abc"], seconds=1.0)
    assert (whole.shortfall, whole.num_missing, whole.trouble) == (None, 0, None)
    forgotten = summarise(PANEL, [Group("a", "a", (episode("a", Status.SUCCESS, ""),))], seconds=1.0)
    assert forgotten.num_missing == 2, "nobody need say that groups are missing"


def test_repetitions_of_a_task_that_end_alike_make_nothing_more_certain():
    """Pain 3: noise that is reported as a difference."""

    def result(outcomes: list[list[bool]]) -> PanelResult:
        groups = []
        for name, successes in zip("abcd", outcomes, strict=True):
            states = [Status.SUCCESS if success else Status.FAILURE for success in successes]
            groups.append(Group(name, name, tuple(episode(name, state, "pick") for state in states)))
        return summarise(PANEL, groups, seconds=1.0)

    once = result([[True], [True], [False], [False]])
    alike = result([[True] * 8, [True] * 8, [False] * 8, [False] * 8])
    mixed = result([[True, False] * 4] * 4)
    assert alike.overall.episodes == 32
    assert alike.overall.interval == pytest.approx(once.overall.interval)
    assert mixed.overall.interval == pytest.approx(wilson_interval(16, 32))
    assert alike.as_metrics()["num_independent_episodes"] == 4


def test_an_environment_without_task_types_has_no_nameless_one():
    result = summarise(PANEL, [Group("a", "a", (episode("a", Status.SUCCESS, ""),))], seconds=1.0)
    assert result.by_task_type == {}


def test_a_panel_that_nobody_could_play_is_an_error():
    with pytest.raises(RuntimeError, match=r"'test' could be played; the first error: broken"):
        summarise(PANEL, [Group("a", "a", (episode("a", Status.ERROR, "pick"),))], seconds=1.0)


def test_every_policy_meets_the_same_initial_states():
    dealt = panel_assignments(PANEL, 2)
    assert panel_assignments(PANEL, 2) == dealt
    assert [(a.task, a.size) for a in dealt] == [("a", 2), ("b", 2), ("c", 2)]
    assert len({a.group_id for a in dealt}) == 3
    renamed = Panel("renamed", 2, PANEL.env_id, PANEL.env_kwargs, PANEL.tasks)
    assert [a.seed for a in panel_assignments(renamed, 2)] == [a.seed for a in dealt]
    assert [a.seed for a in dealt] == [1874092481, 977559837, 942133219]
