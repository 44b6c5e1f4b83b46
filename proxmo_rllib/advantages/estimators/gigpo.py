"""GiGPO: group in group, by identical anchors (Feng et al. 2025, arXiv:2505.10978, equations 3 to 8)."""

from __future__ import annotations

from typing import Literal

from proxmo_rllib.advantages.anchor_groups import HardComparison
from proxmo_rllib.advantages.episode import STD_EPSILON, MeanOver, Outcome, episode_outcome, relative_outcome
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go, step_advantage
from proxmo_rllib.advantages.table import FloatArray, TurnTable


@register_estimator("gigpo")
def gigpo(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    step_weight: float = 1.0,
    normalization: Literal["mean", "mean_std"] = "mean_std",
    outcome: Outcome = "success",
    episode_mean_over: MeanOver = "episodes",
    similarity_threshold: float | None = None,
    invalid_action_penalty: float = 0.0,
) -> Advantages:
    """`A(t) = (R_i - mean R) / F + omega * (G_t - mean G) / F'`.

    The mean of `R` is over the episodes of the group, that of `G` over the turns of the anchor group. `F` and `F'` are
    the standard deviations (plus 1e-6) with "mean_std" and 1 with "mean".

    Assumes that a turn's prospects are alike only where its observation is the same. A turn whose anchor nobody else in
    the group has gets step advantage zero, and so does a group of one.

    Args:
        table: the turns.
        gamma: discount per turn of the returns to go.
        step_weight: omega.
        normalization: subtract the mean, or also divide by the std (Bessel's correction).
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
        episode_mean_over: mean and std of the outcomes over episodes, or over turns as in the official code.
        similarity_threshold: None for identical anchors, or the least `difflib` ratio to join an anchor group.
        invalid_action_penalty: subtracted from the reward of an invalid turn in `G_t`, never from `R_i`.
    """
    returns = returns_to_go(table, gamma, invalid_action_penalty)
    return group_in_group(table, returns, step_weight, normalization, outcome, episode_mean_over, similarity_threshold)


def group_in_group(
    table: TurnTable,
    values: FloatArray,
    step_weight: float,
    normalization: Literal["mean", "mean_std"],
    outcome: Outcome,
    episode_mean_over: MeanOver,
    similarity_threshold: float | None = None,
) -> Advantages:
    """Episodes against the others of their group, and turns by `values`, [turns], against those with the same anchor.

    The other arguments are those of `gigpo`, whose values are the returns to go.
    """
    use_std = normalization == "mean_std"
    episode = relative_outcome(
        table, episode_outcome(table, outcome), normalize_std=use_std, mean_over=episode_mean_over
    )
    comparison = HardComparison.of(table, values, similarity_threshold)
    step = step_advantage(table, values, comparison.baseline)
    if use_std:
        step = step / (comparison.spread + STD_EPSILON)
    return Advantages.build(
        table, episode=episode, step=step, step_weight=step_weight, returns=values, comparison=comparison
    )
