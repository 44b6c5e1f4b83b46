"""What an iteration did not log is absent from its result; what it logged is there, whatever it is."""

from __future__ import annotations

import math

import pytest
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from proxmo_rllib.metrics_logger import LoggedMetrics


@pytest.fixture
def loggers():
    """Of an environment runner or learner, and of the algorithm that gathers what it reports."""
    return LoggedMetrics.like(MetricsLogger(root=False)), LoggedMetrics.like(MetricsLogger(root=True))


KINDS = {"mean": {"window": 1}, "sum": {}, "max": {"window": 1}, "min": {}, "item": {}, "ema": {}}


@pytest.mark.parametrize("reduce", KINDS)
def test_a_key_is_reported_by_the_iterations_that_logged_it(loggers, reduce):
    worker, root = loggers
    results = []
    for value in (2.0, None, 3.0):
        worker.log_value("always", 1, reduce="sum")
        if value is not None:
            worker.log_value(("part", "sometimes"), value, reduce=reduce, **KINDS[reduce])
            root.log_value("own", value, reduce=reduce, **KINDS[reduce])
        root.aggregate([worker.reduce()], key="worker")
        results.append(root.compile())
    assert [result["worker"]["always"] for result in results] == [1, 1, 1]
    if reduce == "ema":  # an average over the iterations, by its nature
        assert all(math.isfinite(result["own"]) for result in results)
        return
    assert [result.get("own") for result in results] == [2.0, None, 3.0]
    assert [result["worker"].get("part") for result in results] == [{"sometimes": 2.0}, None, {"sometimes": 3.0}]


def test_a_number_that_went_wrong_is_not_hidden(loggers):
    worker, root = loggers
    worker.log_value("loss", math.nan, reduce="mean", window=1)
    root.aggregate([worker.reduce()], key="learners")
    assert math.isnan(root.compile()["learners"]["loss"])


def test_lifetime_sums_stay(loggers):
    _, root = loggers
    root.log_value("steps", 5, reduce="lifetime_sum")
    assert [root.compile()["steps"] for _ in range(2)] == [5, 5]


def test_rllibs_own_timers_report_the_last_iteration(loggers):
    _, root = loggers
    root.time_each_iteration()
    seconds = []
    for value in (100.0, 1.0):
        root.log_value(("timers", "training_iteration"), value)
        seconds.append(root.compile()["timers"]["training_iteration"])
    assert seconds == [100.0, 1.0]


def test_what_was_logged_before_is_kept():
    before = MetricsLogger(root=True)
    before.log_value("parameters", 7, reduce="sum")
    assert LoggedMetrics.like(before).compile() == {"parameters": 7}
