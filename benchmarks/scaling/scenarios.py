"""What is simulated for the page: two kinds of machines, how many, and what would be done about what is slow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scaling import gpu_cluster
from benchmarks.scaling.constants import Recorded, Times
from benchmarks.scaling.simulation import simulate
from benchmarks.scaling.training import Layout
from benchmarks.scaling.workload import Recording, Workload

NUMBERS = (1, 4, 16, 64, 256, 1024)
STALENESS = (0, 1, 2, 4)
GROUPS = 16  # an iteration, for each engine
#: Where remedies are tried.
REMEDIED = ((64, 1), (1024, 1))


Changed = tuple[Times, Layout]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Machines, and what is played on them.

    Attributes:
        name: in words.
        times: of them.
        workload: that is played.
    """

    name: str
    times: Times
    workload: Workload


THIS, GPUS = "machines like this one", "a GPU cluster"


def scenarios(recorded: Recorded) -> tuple[Scenario, ...]:
    """Those of the page."""
    return (
        Scenario(THIS, recorded.times, Recording(recorded.groups)),
        Scenario(GPUS, gpu_cluster.gpu_times(recorded.times), gpu_cluster.WORKLOAD),
    )


def _alone(times: Times, layout: Layout) -> Changed:
    a, _, _ = times.driver.round_s
    b, _, _ = times.driver.stream_s
    return replace(times, driver=replace(times.driver, round_s=(a, 0, 0), stream_s=(b, 0, 0))), layout


def _references(times: Times, layout: Layout) -> Changed:
    return replace(times, driver=replace(times.driver, get_s=0.0, put_s=0.0, log_s=0.0, turn_bytes=0.0)), layout


def _broadcast(times: Times, layout: Layout) -> Changed:
    size, rate = times.transfer.weights_bytes, times.learner.allreduce_bytes_per_s
    load_s = min(times.transfer.load_s, 0.01 + size / rate)
    return replace(times, transfer=replace(times.transfer, copy_bytes_per_s=rate, load_s=load_s)), layout


#: One after the other, each with those before it.
REMEDIES: tuple[tuple[str, Callable[[Times, Layout], Changed]], ...] = (
    ("as it is", lambda times, layout: (times, layout)),
    ("noting an answer takes no longer where there are more runners", _alone),
    ("groups go from runner to learner; the driver has references and sums", _references),
    ("weights are broadcast from learner to engines, not through the object store", _broadcast),
)


def remedied(times: Times, layout: Layout, count: int) -> Changed:
    """Service times and layout with the first so many remedies."""
    for _, remedy in REMEDIES[: count + 1]:
        times, layout = remedy(times, layout)
    return times, layout


def results(recorded: Recorded, numbers: Sequence[int], most: int) -> Iterator[dict[str, Any]]:
    """A row for each thing that is simulated, as soon as it is there.

    Args:
        recorded: what was measured.
        numbers: of engines, environment runners and learners each.
        most: that are simulated one by one.
    """
    for scenario in scenarios(recorded):
        for number in numbers:
            for max_staleness in STALENESS:
                yield _row(scenario, scenario.times, _layout(number, max_staleness), most, "as it is")
        for number, max_staleness in REMEDIED:
            layout = _layout(number, max_staleness)
            for count, (words, _) in enumerate(REMEDIES[1:], 1):
                if number in numbers:
                    yield _row(scenario, *remedied(scenario.times, layout, count), most, words)


def _layout(number: int, max_staleness: int) -> Layout:
    return Layout(number, number, number, GROUPS * number, max_staleness=max_staleness)


def _row(scenario: Scenario, times: Times, layout: Layout, most: int, remedy: str) -> dict[str, Any]:
    outcome = simulate(times, scenario.workload, layout, iterations=3, most=most)
    row = dataclasses.asdict(outcome) | {"busiest": outcome.busiest}
    del row["layout"]
    return {
        "scenario": scenario.name,
        "number": layout.engines,
        "max_staleness": layout.max_staleness,
        "remedy": remedy,
    } | {key: _rounded(value) for key, value in row.items()}


def _rounded(value: Any) -> Any:
    """Four digits: others would only make the file long."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
