"""What the trainings say: means, paired differences, and whether chance explains them. The seed is what is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from proxmo_rllib.evaluation.intervals import mean_interval
from proxmo_rllib.evaluation.pairs import holm

DRAWS = 10_000
TARGET = 0.8
#: Iterations of which one success rate of the training episodes is made.
TOGETHER = 5

Record = Mapping[str, Any]


class Estimate(NamedTuple):
    """A mean over seeds, with its 95% interval (Student's t); without one where there is one seed."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Of a method from another, paired by seed.

    Attributes:
        mean: with the interval of Student's t over the seeds' differences.
        drawn: the interval of a bootstrap over seeds, and over the tasks of the panel within them.
        p: of Student's paired test, two-sided.
        p_corrected: of all differences of the table (Holm).
    """

    mean: Estimate
    drawn: tuple[float, float]
    p: float
    p_corrected: float


def final(record: Record) -> float:
    """Success rate on the panel at the end."""
    return float(record["curve"][-1][1])


def turns_to(record: Record, target: float = TARGET) -> float:
    """Turns after which the training episodes of five iterations together succeed so often; infinite if never."""
    rows = record["training"]
    for end in range(TOGETHER, len(rows) + 1):
        some = rows[end - TOGETHER : end]
        if sum(row[1] for row in some) >= target * sum(row[2] for row in some):
            return float(rows[end - 1][0])
    return math.inf


def mean(values: Sequence[float]) -> Estimate:
    """Over seeds."""
    low, high = mean_interval(values) or (math.nan, math.nan)
    return Estimate(math.fsum(values) / len(values), low, high)


def paired(records: Mapping[int, Record], others: Mapping[int, Record]) -> tuple[list[float], np.ndarray]:
    """Differences of two methods in the seeds that both have.

    Args:
        records: of a method, by seed.
        others: of the one that is subtracted.

    Returns:
        The difference of the final rates of each seed, and of each task of the panel, float64 [seeds, tasks].
    """
    seeds = sorted(set(records) & set(others))
    tasks = [_solved(records[seed]) - _solved(others[seed]) for seed in seeds]
    return [final(records[seed]) - final(others[seed]) for seed in seeds], np.array(tasks)


def _solved(record: Record) -> np.ndarray:
    """Share of the repetitions in which each task was solved, float64 [tasks]."""
    repeats = record["curve"][-1][2] / len(record["solved"])
    return np.array([int(digit) for digit in record["solved"]]) / repeats


def p_value(differences: Sequence[float]) -> float:
    """Student's paired test that the mean is zero, two-sided; 1 where there are fewer than two, or all are zero."""
    from scipy.special import stdtr

    count = len(differences)
    if count < 2 or not any(differences):
        return 1.0
    deviation = float(np.std(differences, ddof=1))
    if deviation == 0:
        return 0.0
    return float(2 * stdtr(count - 1, -abs(math.fsum(differences) / count) / (deviation / math.sqrt(count))))


def bootstrap(tasks: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of a mean difference over seeds and tasks, both drawn anew.

    With five seeds it is too narrow: their spread is underestimated by a tenth, and percentiles add nothing for it.

    Args:
        tasks: float64 [seeds, tasks].
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    count, number = tasks.shape
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        # The tasks are those of one panel: the same are drawn for every seed.
        some = tasks[np.ix_(rng.integers(count, size=count), rng.integers(number, size=number))]
        drawn[draw] = some.mean()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def differences(by_method: Mapping[str, Mapping[int, Record]], reference: str) -> dict[str, Difference]:
    """Each method's final rate minus the reference's.

    Args:
        by_method: records by method and seed.
        reference: the method that is subtracted.
    """
    pairs = {
        method: paired(records, by_method[reference])
        for method, records in by_method.items()
        if method != reference and len(set(records) & set(by_method[reference])) > 1
    }
    p_values = [p_value(seeds) for seeds, _ in pairs.values()]
    return {
        method: Difference(mean(seeds), bootstrap(tasks), p, corrected)
        for (method, (seeds, tasks)), p, corrected in zip(pairs.items(), p_values, holm(p_values), strict=True)
    }
