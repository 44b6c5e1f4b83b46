"""MaxRL: outcome relative to the success rate (Tajwar et al. 2026, arXiv:2602.02710)."""

from __future__ import annotations

import numpy as np

from proxmo_rllib.advantages.episode import centred
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("maxrl")
def maxrl(table: TurnTable, *, gamma: float = 0.95) -> Advantages:
    """`A(i) = (R_i - p) / p` over the group with success rate `p`, no unit; zero where no episode succeeded.

    Assumes binary outcomes. Its expected gradient is that of the log-likelihood of success, truncated at the group
    size, where REINFORCE follows the success rate itself: a rare success weighs 1 / p.

    Args:
        table: the turns.
        gamma: discount of the returns to go, which are reported and not used.
    """
    rate = table.success_rate()[table.episode_group]
    difference = centred(table, table.episode_success, np.ones(table.num_episodes))
    episode = np.divide(difference, rate, out=np.zeros_like(difference), where=rate > 0.0)
    return Advantages.build(table, episode=episode, returns=returns_to_go(table, gamma))
