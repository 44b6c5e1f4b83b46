"""What came of a simulated run: the time of an iteration, who was busy, how old what was learned from was."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.scaling.constants import Times
from benchmarks.scaling.training import Iteration, Layout, Training
from benchmarks.scaling.workload import Workload

#: What the rest of a run may wait for. `transfer` is the way of the weights, without the driver's part of it.
PARTS = ("engines", "runners", "learners", "transfer", "driver", "store")
PHASES = ("sampling", "learning", "transfer", "between")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over the iterations that count; times are seconds.

    Attributes:
        layout: what was simulated.
        seconds: of an iteration.
        phases: of it, by their names.
        turns_per_s: of all runners.
        busy: share of the time in which a part was, by its name; the mean where it has several members.
        staleness_mean: weight updates since a token was sampled, over the tokens.
        staleness_max: of them.
    """

    layout: Layout
    seconds: float
    phases: Mapping[str, float]
    turns_per_s: float
    busy: Mapping[str, float]
    staleness_mean: float
    staleness_max: int

    @property
    def busiest(self) -> str:
        """The part that works for the largest share of the time: the others wait for it."""
        return max(PARTS, key=lambda part: self.busy[part])


def simulate(
    times: Times, workload: Workload, layout: Layout, *, iterations: int = 4, seed: int = 0, most: int = 16
) -> Outcome:
    """Simulates a run. Its first iterations do not count: in them begins what is played ahead.

    Args:
        times: of all parts.
        workload: what is played.
        layout: what there is.
        iterations: that count.
        seed: of what is drawn.
        most: engines and runners that are simulated one by one; each stands for several.
    """
    training = Training(times, workload, layout, seed, most)
    training.run(2 + layout.max_staleness + iterations)
    return outcome_of(layout, training.iterations[-iterations:])


def outcome_of(layout: Layout, counted: list[Iteration]) -> Outcome:
    """Of some iterations."""
    seconds = statistics.fmean(each.seconds for each in counted)
    ages: Counter[int] = Counter()
    for each in counted:
        ages.update(each.tokens_by_age)
    return Outcome(
        layout=layout,
        seconds=seconds,
        phases={name: statistics.fmean(getattr(each, name) for each in counted) for name in PHASES},
        turns_per_s=statistics.fmean(each.turns for each in counted) / seconds,
        busy={part: statistics.fmean(each.busy[part] for each in counted) / seconds for part in PARTS},
        staleness_mean=sum(age * tokens for age, tokens in ages.items()) / ages.total(),
        staleness_max=max(ages),
    )
