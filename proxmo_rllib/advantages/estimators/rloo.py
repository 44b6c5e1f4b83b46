"""RLOO: outcome against the mean of the other episodes (Ahmadian et al. 2024, arXiv:2402.14740, section 3.3)."""

from __future__ import annotations

import numpy as np

from proxmo_rllib.advantages.episode import Outcome, centred, episode_outcome
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("rloo")
def rloo(table: TurnTable, *, gamma: float = 0.95, outcome: Outcome = "success") -> Advantages:
    """`A(i) = R_i - mean of R_j, j != i` over the group, unit of outcome, the same for every turn of an episode.

    Assumes that the episodes of a group are independent samples of one task; then the baseline does not bias the
    gradient. Equal to `N / (N - 1)` times Dr. GRPO's. A group of one gets zero.

    Args:
        table: the turns.
        gamma: discount of the returns to go, which are reported and not used.
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
    """
    size = table.episodes_per_group()[table.episode_group].astype(np.float64)
    difference = centred(table, episode_outcome(table, outcome), np.ones(table.num_episodes))
    episode = difference * size / np.maximum(size - 1.0, 1.0)
    return Advantages.build(table, episode=episode, returns=returns_to_go(table, gamma))
