"""Dr. GRPO: GRPO without the std (Liu et al. 2025, arXiv:2503.20783, section 3.2)."""

from __future__ import annotations

from proxmo_rllib.advantages.episode import MeanOver, Outcome, episode_outcome, relative_outcome
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("dr_grpo")
def dr_grpo(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    outcome: Outcome = "success",
    episode_mean_over: MeanOver = "episodes",
) -> Advantages:
    """`A(i) = R_i - mean R` over the episodes of the group, unit of outcome, the same for every turn of an episode.

    Assumes as GRPO does. Without the std, very easy and very hard tasks are not weighted up. The other half of
    Dr. GRPO, no division by the length of a response, is the loss's matter.

    Args:
        table: the turns.
        gamma: discount of the returns to go, which are reported and not used.
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
        episode_mean_over: mean over episodes, or over turns, where long episodes count more.
    """
    values = episode_outcome(table, outcome)
    episode = relative_outcome(table, values, normalize_std=False, mean_over=episode_mean_over)
    return Advantages.build(table, episode=episode, returns=returns_to_go(table, gamma))
