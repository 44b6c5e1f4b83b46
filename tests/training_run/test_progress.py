"""From RLlib's results to numbers in files and on the screen."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.training_run import PanelScore, Progress

RESULT = {
    "training_iteration": 3,
    "config": {"lr": 1.0},
    "hostname": "x",
    "policy_version": 12,
    "weight_transfer_error": 1e-6,
    "timers": {"env_runner_sampling_timer": 2.0, "learner_update_timer": 4.0, "synch_weights": 0.5},
    "env_runners": {
        "num_successes": 30,
        "num_episodes": 40,
        "num_errors": 1,
        "num_env_steps_sampled": 200,
        "num_invalid_actions": 50,
        "num_response_tokens": 1000,
        "episode_return_mean": np.float32(0.5),
        "episode_len_mean": 5.0,
    },
    "learners": {"default_policy": {"num_tokens_trained": 8000, "total_loss": math.nan}},
    "evaluation": {
        "success_rate": 0.75,
        "num_episodes": 8,
        "seconds": 3.0,
        "by_task_type": {"pick": {"success_rate": 1.0}},
    },
}


def test_metrics_are_flat_plain_numbers_that_json_takes():
    flat = flatten(RESULT)
    assert flat["env_runners/episode_return_mean"] == 0.5
    assert flat["evaluation/by_task_type/pick/success_rate"] == 1.0
    assert flat["learners/default_policy/total_loss"] is None  # not NaN, which JSON does not know
    assert not any(key.startswith("config") or key == "hostname" for key in flat)
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat
    assert all(type(value) in (float, type(None)) for value in flat.values())


def test_rates_come_from_counts_and_speeds_from_the_phases_they_belong_to():
    progress = Progress.from_result(RESULT, minutes=1.5)
    assert progress.success_rate == 0.75
    assert progress.interval[0] < 0.75 < progress.interval[1]
    assert progress.invalid_rate == 0.25  # a share of turns
    assert progress.rollout_tokens_per_s == 500
    assert progress.learner_tokens_per_s == 2000
    assert progress.policy_version == 12
    assert progress.panel == PanelScore(6, 8, 3.0)


def test_an_iteration_in_which_every_episode_broke_can_be_shown():
    progress = Progress.from_result({"training_iteration": 1, "env_runners": {"num_errors": 8}}, minutes=0.1)
    assert progress.errors == 8
    assert math.isnan(progress.success_rate)
    assert progress.interval == (0.0, 1.0)
    assert progress.as_metrics() == {"iteration": 1, "minutes": 0.1}  # no rate of nothing
    assert progress.panel is None


def test_a_score_says_its_interval():
    assert str(PanelScore(6, 8, 3.0)) == "75.0% [40.9%, 92.9%] (6/8)"
    assert PanelScore.from_metrics({}) is None
    assert PanelScore(0, 6, 1.0).interval[0] == pytest.approx(0)
