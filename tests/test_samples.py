"""Samples for histograms are of all values alike, however many parts logged them and in whatever order."""

from __future__ import annotations

import json

import numpy as np
import torch

from proxmo_rllib.exact_stats import SAMPLE_SIZE, merge_samples, sample_of
from proxmo_rllib.learner.loss_means import LossMeans
from proxmo_rllib.learner.losses import TokenLoss
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.metrics_logger import LoggedMetrics
from proxmo_rllib.training_run.progress import histograms


def learner() -> LoggedMetrics:
    return LoggedMetrics.part_of(root())


def root() -> LoggedMetrics:
    from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

    return LoggedMetrics.like(MetricsLogger(root=True))


def test_the_values_of_several_learners_come_together_in_proportion():
    """One has nine times the values of the other; a sample of samples of equal size would have as many of each."""
    together, parts = root(), [learner(), learner()]
    for _ in range(2):
        parts[0].log_value(("p", "histograms", "x"), sample_of(np.zeros(9000)), reduce="sample")
        parts[1].log_value(("p", "histograms", "x"), sample_of(np.ones(1000)), reduce="sample")
    together.aggregate([part.reduce() for part in parts], key="learners")
    values = together.reduce(compile=True)["learners"]["p"]["histograms"]["x"]
    assert len(values) == SAMPLE_SIZE
    assert 0.02 < np.mean(values) < 0.25  # 0.1, six standard deviations about
    assert together.reduce(compile=True) == {}  # the next iteration begins anew


def test_few_values_are_all_there_and_those_that_are_not_finite_are_not():
    logger = root()
    logger.log_value("x", sample_of([3, 1, 2, np.nan, np.inf, 0.123456789]), reduce="sample")
    assert sorted(logger.reduce(compile=True)["x"]) == [0.12346, 1.0, 2.0, 3.0]


def test_a_merge_does_not_depend_on_the_order():
    parts = [sample_of(np.arange(size)) for size in (1000, 0, 10, 500)]
    assert merge_samples(*parts) == merge_samples(merge_samples(*parts[2:]), merge_samples(*reversed(parts[:2])))


def test_a_sample_survives_a_state():
    logger, other = root(), root()
    for one in (logger, other):
        one.log_value("x", sample_of([1.0]), reduce="sample")
    state = json.loads(json.dumps(logger.stats["x"].get_state(), default=str))
    other.stats["x"].set_state(logger.stats["x"].get_state() | {"parts": state["parts"]})
    assert other.reduce(compile=True)["x"] == [1.0]


def loss(ratios: list[float]) -> TokenLoss:
    total = torch.tensor(0.0)
    return TokenLoss(total, {"policy_loss": (total, total + 1)}, spreads={"ratio": torch.tensor(ratios)})


def test_the_ratios_of_all_micro_batches_are_sampled_where_they_are_wanted():
    means = LossMeans(histograms=True)
    for ratios in ([1.0, 2.0], [], [3.0] * 1000):
        means.add(loss(ratios))
    ((name, sample),) = means.take_samples()
    assert name == "ratio"
    assert len(sample) == SAMPLE_SIZE
    assert {value for _, value in sample} <= {1.0, 2.0, 3.0}
    assert list(means.take_samples()) == []
    means = LossMeans()
    means.add(loss([1.0]))
    assert list(means.take_samples()) == []


def test_lists_of_a_result_are_histograms_and_no_metrics():
    result = {
        "config": {"histograms": {"x": [1]}},
        "env_runners": {"success_rate": 0.5, "histograms": {"episode_len": [1.0]}},
        "learners": {"default_policy": {"histograms": {"ratio": [2.0]}}},
    }
    assert histograms(result) == {
        "env_runners/histograms/episode_len": [1.0],
        "learners/default_policy/histograms/ratio": [2.0],
    }
    assert flatten(result) == {"env_runners/success_rate": 0.5}
