"""GRPO: outcome relative to the group (Shao et al. 2024, arXiv:2402.03300, section 4.1.2)."""

from __future__ import annotations

from proxmo_rllib.advantages.episode import MeanOver, Outcome, episode_outcome, relative_outcome
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("grpo")
def grpo(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    outcome: Outcome = "success",
    normalize_std: bool = True,
    episode_mean_over: MeanOver = "episodes",
) -> Advantages:
    """`A(i) = (R_i - mean R) / (std R + 1e-6)` over the episodes of the group, the same for every turn of an episode.

    Assumes that the episodes of a group are samples of one task from one state. Blind to which turn did it: a detour in
    a successful episode is praised like the step that solved the task.

    Args:
        table: the turns.
        gamma: discount of the returns to go, which are reported and not used.
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
        normalize_std: divide by the standard deviation (Bessel's correction) of the outcomes.
        episode_mean_over: mean and std over episodes, or over turns, where long episodes count more.
    """
    episode = relative_outcome(
        table,
        episode_outcome(table, outcome),
        normalize_std=normalize_std,
        mean_over=episode_mean_over,
    )
    return Advantages.build(table, episode=episode, returns=returns_to_go(table, gamma))
