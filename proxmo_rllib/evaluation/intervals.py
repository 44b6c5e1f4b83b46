"""Confidence intervals of success rates."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927), good near 0 and 1 too.

    Args:
        successes: between 0 and `trials`.
        trials: independent tries; with none the interval is (0, 1).
        z: quantile of the normal distribution; the default gives 95%.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes}: it must lie between 0 and trials={trials}.")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    denominator = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / denominator
    # At the ends both terms are equal, but for rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high
