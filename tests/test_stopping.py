"""When a run ends."""

from __future__ import annotations

import pytest

from proxmo_rllib import StopCriteria


def test_the_first_criterion_that_is_reached_ends_the_run():
    stop = StopCriteria(iterations=10, success_rate=0.9, minutes=5)
    assert stop.reached(9, 4.9, 0.89) is None
    assert "10 iterations" in (stop.reached(10, 1.0) or "")
    assert "5 minutes" in (stop.reached(1, 5.0) or "")
    assert "90.0%" in (stop.reached(1, 1.0, 0.9) or "")


def test_without_criteria_a_run_goes_on():
    assert StopCriteria().reached(10**6, 10**6, 1.0) is None
    assert StopCriteria().minutes_left(1, 1.0, 1.0) is None


def test_an_iteration_without_an_evaluation_is_not_stopped_by_the_success_rate():
    assert StopCriteria(success_rate=0.1).reached(1, 1.0, None) is None


def test_the_time_left_is_that_of_the_nearest_criterion():
    stop = StopCriteria(iterations=10, minutes=30)
    assert stop.minutes_left(4, 8.0, 2.0) == 12.0
    assert stop.minutes_left(4, 25.0, 2.0) == 5.0
    assert stop.minutes_left(4, 31.0, 2.0) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"iterations": 1.5}, {"iterations": True}, {"success_rate": 90}, {"minutes": 0}],
    ids=str,
)
def test_a_criterion_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StopCriteria(**wrong)
