"""Success-rate-aware modulation of the episode advantage: the Polarized Signal Controller of ProxMO.

arXiv 2602.19225: `w(1, p) = 1 + beta * (sigmoid((1 - p)^alpha) - 0.5)` amplifies a success where successes are rare,
`w(0, p) = 1 + beta * (sigmoid(-p^alpha) - 0.5)` attenuates a failure where successes are common. Since `p` is in
[0, 1], `|w - 1| <= beta * (sigmoid(1) - 0.5) = 0.2311 * beta`.
"""

from __future__ import annotations

import numpy as np

from proxmo_rllib.advantages.episode import MeanOver, episode_weight, group_mean, relative_outcome
from proxmo_rllib.advantages.table import FloatArray, TurnTable

DEFAULT_BETA = 0.1
HALF_SPAN = float(1.0 / (1.0 + np.exp(-1.0)) - 0.5)  # sigmoid(1) - 0.5, the largest deviation at beta 1


def modulation(success: FloatArray, success_rate: FloatArray, *, alpha: float, beta: float) -> FloatArray:
    """Factor on the episode advantage.

    Args:
        success: 1 or 0 for each episode, shape [episodes].
        success_rate: of the episode's group, 0 to 1, shape [episodes].
        alpha: exponent; larger confines the effect to groups that nearly always fail or nearly always succeed.
        beta: strength; 0 switches the modulation off.

    Returns:
        Shape [episodes], within 1 +- 0.2311 * beta.
    """
    exponent = np.where(success > 0.5, (1.0 - success_rate) ** alpha, -(success_rate**alpha))
    return 1.0 + beta * (1.0 / (1.0 + np.exp(-exponent)) - 0.5)


def resolve_beta(psc_beta: float | None, psc_range: float | None, default: float = DEFAULT_BETA) -> float:
    """The strength, given directly or as the largest deviation from 1 (`beta = range / (sigmoid(1) - 0.5)`).

    Raises:
        ValueError: both were given.
    """
    if psc_beta is not None and psc_range is not None:
        raise ValueError(
            f"psc_beta={psc_beta} and psc_range={psc_range}: both set the strength of the modulation; give one of them."
        )
    if psc_range is not None:
        return psc_range / HALF_SPAN
    return default if psc_beta is None else psc_beta


def modulated_outcome(
    table: TurnTable, *, alpha: float, beta: float, normalize_std: bool, mean_over: MeanOver
) -> tuple[FloatArray, FloatArray]:
    """ProxMO's episode advantage `w(R, p) * (R - p) / (std + eps)` and its factor `w`, each of shape [episodes]."""
    success = table.episode_success
    rate = group_mean(table, success, episode_weight(table, mean_over))[table.episode_group]
    factor = modulation(success, rate, alpha=alpha, beta=beta)
    return factor * relative_outcome(table, success, normalize_std=normalize_std, mean_over=mean_over), factor
