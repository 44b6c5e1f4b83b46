"""Scalars that say each iteration whether the credit assignment still has something to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from proxmo_rllib.advantages.result import Advantages

# Upper edges of the success-rate histogram: groups that never succeed and groups that always do teach the episode
# advantage nothing, so they have a bin of their own.
HISTOGRAM = ("0", "0_to_25", "25_to_50", "50_to_75", "75_to_100", "100")


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
    table = advantages.table
    rates = np.fromiter(advantages.success_rate.values(), dtype=np.float64)
    sizes = table.episodes_per_group()
    flat = np.ones(table.num_groups, dtype=bool)
    flat[table.group_of[advantages.episode != 0.0]] = False
    scalars = {
        "groups": float(table.num_groups),
        "groups_of_one": float((sizes == 1).sum()),
        "groups_without_contrast": float(flat.mean()),
        "success_rate/mean": float(rates.mean()),
        "modulation/min": float(advantages.modulation.min()),
        "modulation/max": float(advantages.modulation.max()),
        "modulation/mean": float(advantages.modulation.mean()),
        "returns/mean": float(advantages.returns.mean()),
        "returns/std": float(advantages.returns.std()),
    }
    bins = np.where(rates >= 1.0, 5, np.where(rates <= 0.0, 0, 1 + np.minimum(rates * 4.0, 3.0).astype(int)))
    share = np.bincount(bins, minlength=len(HISTOGRAM)) / len(rates)
    scalars |= {f"success_rate/share_{name}": float(value) for name, value in zip(HISTOGRAM, share, strict=True)}
    for name in ("total", "episode", "step"):
        values = getattr(advantages, name)
        scalars[f"{name}/mean"] = float(values.mean())
        scalars[f"{name}/std"] = float(values.std())
        scalars[f"{name}/abs_max"] = float(np.abs(values).max())
    if advantages.comparison is not None:
        scalars["step/neighbourhood_mean"] = float(advantages.comparison.neighbourhood.mean())
        scalars["step/neighbourhood_min"] = float(advantages.comparison.neighbourhood.min())
        scalars["step/self_weight_mean"] = float(advantages.comparison.self_weight.mean())
    return scalars | _anchor_shares(advantages)


def _anchor_shares(advantages: Advantages) -> dict[str, float]:
    counts: dict[tuple[int, str], int] = {}
    for key in zip(advantages.table.group_of.tolist(), advantages.table.anchor, strict=True):
        counts[key] = counts.get(key, 0) + 1
    singletons = sum(1 for count in counts.values() if count == 1)
    return {
        "anchors/distinct_share": len(counts) / len(advantages),
        "anchors/singleton_share": singletons / len(advantages),
    }
