"""Real runs beside simulated ones: the same config, one engine and two, waiting and not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.scaling.constants import Recorded
from benchmarks.scaling.simulation import simulate
from benchmarks.scaling.training import Layout
from benchmarks.scaling.workload import Recording

BOUND = 0.15  # of the measured time
CASES = ((1, 0), (2, 0), (1, 1), (2, 1))  # engines, staleness


def predicted_s(recorded: Recorded, engines: int, max_staleness: int) -> float:
    """Seconds of an iteration of the quickstart on this machine, simulated."""
    layout = Layout(engines, 1, 0, 16, max_staleness=max_staleness, together=True)
    return simulate(recorded.times, Recording(recorded.groups), layout, iterations=20).seconds


def measured_s(engines: int, max_staleness: int, iterations: int) -> float:
    """Seconds of an iteration, of a real run."""
    from benchmarks.scaling.real_run import example, running

    with running(example(engines, max_staleness)) as algorithm:
        began = time.perf_counter()
        for _ in range(iterations):
            algorithm.train()
        return (time.perf_counter() - began) / iterations


def compare(recorded: Recorded, iterations: int) -> Iterator[dict[str, float]]:
    """A row for each case, as soon as it is there."""
    for engines, max_staleness in CASES:
        measured = measured_s(engines, max_staleness, iterations)
        predicted = predicted_s(recorded, engines, max_staleness)
        yield {
            "engines": engines,
            "max_staleness": max_staleness,
            "measured_s": measured,
            "predicted_s": predicted,
            "off": predicted / measured - 1,
        }


def is_within(rows: list[dict[str, Any]]) -> bool:
    """Whether all predictions are as near as they should be."""
    return all(abs(row["off"]) <= BOUND for row in rows)
