"""Dynamic sampling (DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2): groups that teach nothing are replaced.

A group whose episodes all came out the same has no episode advantage. Learned from, it only makes the others' share of
the gradient smaller, all the more the fewer tasks are neither always nor never solved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from proxmo_rllib.curriculum.parts import Context, DynamicSampling
from proxmo_rllib.curriculum.registry import register_dynamic_sampling
from proxmo_rllib.types import Group

# Advantages are of the size of a z-score or of a reward; what is smaller is rounding.
_ZERO = 1e-8


@register_dynamic_sampling("none")
class KeepAll(DynamicSampling):
    """Every group is learned from, each with the weight 1."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, at_most=1.0)

    def has_contrast(self, group: Group) -> bool:
        return True

    def get_state(self) -> dict[str, Any]:
        return {}


@register_dynamic_sampling("outcome")
class ByOutcome(DynamicSampling):
    """A group teaches something if some of its episodes succeed and some do not: DAPO's rule.

    It is exact for estimators that compare successes alone (`grpo`, `dr_grpo`, `rloo`, `maxrl`). Those with a step
    advantage (`proxmo`, `gigpo`) may learn from the others too, such as which way to a success was the shorter one.
    """

    def __init__(self, context: Context, *, at_most: float = 3.0) -> None:
        super().__init__(context, at_most)

    def has_contrast(self, group: Group) -> bool:
        return len({episode.success for episode in group.episodes}) > 1


@register_dynamic_sampling("advantage")
class ByAdvantage(DynamicSampling):
    """A group teaches something if the run's estimator gives any of its turns an advantage that is not zero.

    Exact for every estimator, for the price of estimating twice. With `proxmo` a group that fails throughout is left
    out if no turn is paid or penalised, and one that succeeds throughout is kept: its turns have different returns to
    go, unless it is of one turn each.
    """

    def __init__(self, context: Context, *, at_most: float = 3.0) -> None:
        super().__init__(context, at_most)
        self._estimate = context.estimate

    def has_contrast(self, group: Group) -> bool:
        if not any(episode.turns for episode in group.episodes):
            return False
        return bool(np.any(np.abs(self._estimate(group)) > _ZERO))
