"""HGPO: nested groups of turns with ever more history in common (He et al. 2026, arXiv:2602.22817)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from proxmo_rllib.advantages.anchor_groups import anchor_groups
from proxmo_rllib.advantages.episode import STD_EPSILON
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import BoolArray, FloatArray, IntArray, TurnTable


@register_estimator("hgpo")
def hgpo(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    history: int = 2,
    history_exponent: float = 1.0,
    normalization: Literal["mean", "mean_std"] = "mean_std",
    invalid_action_penalty: float = 0.0,
) -> Advantages:
    """`A(t) = sum_k w_k (G_t - mean_k G) / F_k`, `w_k` proportional to `(k + 1)^alpha`, k from 1 to `history + 1`.

    Group k of a turn has the turns of its group of episodes with the same last k observations, its own among them. The
    mean and `F_k`, the standard deviation plus 1e-6 with "mean_std" and 1 with "mean", are over it. A turn is in group
    k if it is at least the k-th of its episode. Groups in which it is alone, or exactly at the mean, say nothing of it
    and have no weight. There is no episode advantage: outcomes come in by the returns to go alone.

    Assumes that turns after the same observation may still have different prospects, the less so the more of their
    history is the same.

    Args:
        table: the turns.
        gamma: discount per turn of the returns to go.
        history: observations before the present one that turns may have in common, at most.
        history_exponent: alpha; 0 weighs all groups alike.
        normalization: subtract the mean, or also divide by the std (without Bessel's correction, as the authors' code).
        invalid_action_penalty: subtracted from the reward of an invalid turn.
    """
    returns = returns_to_go(table, gamma, invalid_action_penalty)
    total, weights = np.zeros(len(table)), np.zeros(len(table))
    for k, group, is_long_enough in _nested_groups(table, history):
        relative, spread, size = _relative(returns, group, is_long_enough)
        if normalization == "mean_std":
            relative = relative / (spread + STD_EPSILON)
        weight = np.where((size > 1) & (relative != 0.0), (k + 1.0) ** history_exponent, 0.0)
        total += weight * relative
        weights += weight
    step = np.divide(total, weights, out=np.zeros(len(table)), where=weights > 0)
    return Advantages.build(table, episode=np.zeros(len(table.episode_length)), step=step, returns=returns)


def _nested_groups(table: TurnTable, history: int) -> Iterator[tuple[int, IntArray, BoolArray]]:
    """For k from 1: the group of each turn by its last k observations, and which turns have so many."""
    anchor = anchor_groups(table)
    previous = np.full(len(table), -1)
    rows = np.flatnonzero(table.next_turn >= 0)
    previous[table.next_turn[rows]] = rows
    group, has = anchor, np.ones(len(table), dtype=bool)
    yield 1, group, has
    for k in range(2, history + 2):
        has = has & (table.time_step >= k - 1)
        if not has.any():
            return
        before = np.where(has, group[previous], -1)
        _, group = np.unique(np.stack([before, anchor]), axis=1, return_inverse=True)
        group = group.ravel()
        yield k, group, has


def _relative(values: FloatArray, group: IntArray, counted: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each turn: its value less its group's mean, the group's std, and its size, over the turns that count."""
    number = int(group.max()) + 1
    size = np.bincount(group[counted], minlength=number).astype(np.float64)
    # Relative to one of the group: equal values are exactly at the mean.
    origin = np.zeros(number)
    origin[group[counted]] = values[counted]
    shifted = np.where(counted, values - origin[group], 0.0)
    mean = np.bincount(group, weights=shifted, minlength=number) / np.maximum(size, 1.0)
    relative = np.where(counted, shifted - mean[group], 0.0)
    spread = np.sqrt(np.bincount(group, weights=relative**2, minlength=number) / np.maximum(size, 1.0))
    return relative, spread[group], np.where(counted, size[group], 0.0)
