"""Wilson's interval, against published values and by its properties."""

from __future__ import annotations

import math

import pytest

from proxmo_rllib.evaluation import independent_trials, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes: int, trials: int, low: float, high: float):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 7, 100])
def test_it_holds_the_rate_and_stays_between_0_and_1(trials: int):
    for successes in range(trials + 1):
        low, high = wilson_interval(successes, trials)
        assert 0 <= low <= successes / trials <= high <= 1
        mirrored = wilson_interval(trials - successes, trials)
        assert mirrored == pytest.approx((1 - high, 1 - low))


def test_it_solves_its_own_equation():
    """The ends are the rates whose distance from the observed one is z standard errors of theirs."""
    for end in wilson_interval(30, 80):
        assert abs(30 / 80 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 80), rel=1e-5)


def test_no_trial_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, trials: int):
    with pytest.raises(ValueError, match=f"successes={successes}"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize(
    ("counts", "worth"),
    [
        ([(1, 1), (0, 1), (1, 1)], 3),  # one try a task
        ([(2, 2), (0, 2)], 2),  # alike within a task
        ([(1, 2), (1, 2)], 4),  # no task differs from another
        ([(4, 4), (4, 4)], 2),  # nothing tells repetitions from copies
        ([(3, 4), (1, 4)], 8),  # by hand: 8 * 8 / 4 / 2
        ([(4, 4), (3, 4), (0, 4)], 12 * 7 * 5 / (25 + 4 + 49) * 9 / 12),
        ([], 0),
    ],
)
def test_what_repeated_tries_are_worth(counts: list[tuple[int, int]], worth: float):
    assert independent_trials(counts) == pytest.approx(worth)
