"""Scalars that say each iteration whether the credit assignment still has something to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from proxmo_rllib.advantages.result import Advantages

# Upper edges of the success-rate histogram: groups that never succeed and groups that always do teach the episode
# advantage nothing, so they have a bin of their own.
HISTOGRAM = ("0", "0_to_25", "25_to_50", "50_to_75", "75_to_100", "100")


# How the values behind a scalar become one number. Those of several shards of a batch, whatever their sizes, are the
# values of the whole batch: `Measured` is what may be put together, a scalar is not.
REDUCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The values behind one scalar."""

    reduction: str  # a key of REDUCTIONS
    values: np.ndarray  # one a group or one a turn, at least one

    @property
    def scalar(self) -> float:
        return float(REDUCTIONS[self.reduction](self.values))


def diagnostics(advantages: Advantages) -> dict[str, float]:
    """What one iteration logs under `advantages/`; every value is a finite float.

    - `groups`; `groups_of_one`: a warning, they get no advantage at all; `groups_without_contrast`: share of the groups
      whose episode advantage is zero throughout.
    - `success_rate/mean` over groups, and `success_rate/share_<bin>`: share of the groups whose success rate in percent
      is in the bin. The bins 0 and 100 hold the groups without contrast; an edge belongs to the bin above.
    - `modulation/min`, `modulation/max`, `modulation/mean` over turns.
    - `total/...`, `episode/...`, `step/...`: `mean`, `std` and `abs_max` over turns. A mean that drifts off zero is the
      first sign of a biased baseline.
    - `returns/mean`, `returns/std` over turns, unit of reward.
    - `step/neighbourhood_mean`, `step/neighbourhood_min`: effective number of turns behind a baseline, `1 / sum(w^2)`.
    - `step/self_weight_mean`: how much of its own return a baseline contains.
    - `anchors/distinct_share`: distinct anchors of a group over its turns.
    - `anchors/singleton_share`: share of the turns whose anchor no other turn of the group has; exact grouping is blind
      on those.
    """
    return {name: measured.scalar for name, measured in measure(advantages).items()}


def measure(advantages: Advantages) -> dict[str, Measured]:
    """The values behind each scalar of `diagnostics`."""
    table = advantages.table
    rates = np.fromiter(advantages.success_rate.values(), dtype=np.float64)
    flat = np.ones(table.num_groups, dtype=bool)
    flat[table.group_of[advantages.episode != 0.0]] = False
    found = {
        "groups": Measured("sum", np.ones(table.num_groups)),
        "groups_of_one": Measured("sum", table.episodes_per_group() == 1),
        "groups_without_contrast": Measured("mean", flat),
        "success_rate/mean": Measured("mean", rates),
        "modulation/min": Measured("min", advantages.modulation),
        "modulation/max": Measured("max", advantages.modulation),
        "modulation/mean": Measured("mean", advantages.modulation),
        "returns/mean": Measured("mean", advantages.returns),
        "returns/std": Measured("std", advantages.returns),
    }
    bins = np.where(rates >= 1.0, 5, np.where(rates <= 0.0, 0, 1 + np.minimum(rates * 4.0, 3.0).astype(int)))
    found |= {f"success_rate/share_{name}": Measured("mean", bins == number) for number, name in enumerate(HISTOGRAM)}
    for name in ("total", "episode", "step"):
        values = getattr(advantages, name)
        found[f"{name}/mean"] = Measured("mean", values)
        found[f"{name}/std"] = Measured("std", values)
        found[f"{name}/abs_max"] = Measured("max", np.abs(values))
    if advantages.comparison is not None:
        neighbourhood = advantages.comparison.neighbourhood
        found["step/neighbourhood_mean"] = Measured("mean", neighbourhood)
        found["step/neighbourhood_min"] = Measured("min", neighbourhood)
        found["step/self_weight_mean"] = Measured("mean", advantages.comparison.self_weight)
    return found | _anchors(advantages)


def _anchors(advantages: Advantages) -> dict[str, Measured]:
    table = advantages.table
    first = np.zeros(len(table), dtype=bool)
    first[np.unique(table.anchor_of, return_index=True)[1]] = True
    return {
        "anchors/distinct_share": Measured("mean", first),
        "anchors/singleton_share": Measured("mean", np.bincount(table.anchor_of)[table.anchor_of] == 1),
    }
