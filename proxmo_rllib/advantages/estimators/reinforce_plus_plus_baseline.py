"""REINFORCE++-baseline: group mean, batch std (Hu et al. 2025, arXiv:2501.03262)."""

from __future__ import annotations

import numpy as np

from proxmo_rllib.advantages.episode import (
    STD_EPSILON,
    MeanOver,
    Outcome,
    centred,
    episode_outcome,
    episode_weight,
)
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("reinforce_plus_plus_baseline")
def reinforce_plus_plus_baseline(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    outcome: Outcome = "success",
    episode_mean_over: MeanOver = "episodes",
) -> Advantages:
    """`A(i) = (R_i - mean R of the group) / (std of these differences over the batch + 1e-6)`, no unit.

    Assumes that the table is the whole batch: on a shard the std is the shard's. Groups without contrast get zero and
    still count in the std. The mean over the batch is zero already, since every group's is.

    Args:
        table: the turns.
        gamma: discount of the returns to go, which are reported and not used.
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
        episode_mean_over: mean and std over episodes, or over turns, where long episodes count more.
    """
    weight = episode_weight(table, episode_mean_over)
    difference = centred(table, episode_outcome(table, outcome), weight)
    std = np.sqrt((weight * difference**2).sum() / max(weight.sum() - 1.0, 1.0))
    return Advantages.build(table, episode=difference / (std + STD_EPSILON), returns=returns_to_go(table, gamma))
