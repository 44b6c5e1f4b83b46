"""ProxMO without soft aggregation: the modulated episode advantage with GiGPO's hard anchor groups (an ablation)."""

from __future__ import annotations

from proxmo_rllib.advantages.anchor_groups import HardComparison
from proxmo_rllib.advantages.episode import MeanOver
from proxmo_rllib.advantages.modulation import modulated_outcome, resolve_beta
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go, step_advantage
from proxmo_rllib.advantages.table import TurnTable


@register_estimator("proxmo_without_aggregation")
def proxmo_without_aggregation(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    psc_alpha: float = 4.0,
    psc_beta: float | None = None,
    psc_range: float | None = None,
    step_weight: float = 1.0,
    normalize_std: bool = True,
    episode_mean_over: MeanOver = "episodes",
    similarity_threshold: float | None = None,
    invalid_action_penalty: float = 0.0,
) -> Advantages:
    """`A(t) = w(R_i, p) * (R_i - p) / (std + 1e-6) + omega * (G_t - mean G of the anchor group)`.

    What ProxMO's soft aggregation is to be measured against; `step_weight=0` leaves the episode advantage alone.
    Assumes as ProxMO does, and that prospects are alike only where the observation is the same.

    Args:
        table: the turns.
        gamma: discount per turn of the returns to go.
        psc_alpha: exponent of the modulation.
        psc_beta: strength of the modulation, 0.1 if neither it nor `psc_range` is given.
        psc_range: the strength as the largest deviation of the modulation from 1.
        step_weight: omega.
        normalize_std: divide the outcome by the standard deviation (Bessel's correction) of the group's.
        episode_mean_over: `p` and std over episodes or over turns.
        similarity_threshold: as in `gigpo`.
        invalid_action_penalty: subtracted from the reward of an invalid turn in `G_t`, never from `R_i` or `p`.
    """
    episode, factor = modulated_outcome(
        table,
        alpha=psc_alpha,
        beta=resolve_beta(psc_beta, psc_range),
        normalize_std=normalize_std,
        mean_over=episode_mean_over,
    )
    returns = returns_to_go(table, gamma, invalid_action_penalty)
    comparison = HardComparison.of(table, returns, similarity_threshold)
    return Advantages.build(
        table,
        episode=episode,
        modulation=factor,
        step=step_advantage(table, returns, comparison.baseline),
        step_weight=step_weight,
        returns=returns,
        comparison=comparison,
    )
