"""Comparing the outcomes of the episodes of a group: means, spreads, and the advantages made of them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from proxmo_rllib.advantages.table import FloatArray, TurnTable

# "steps" is the official code's word for turns; both name the same thing.
MeanOver = Literal["episodes", "turns", "steps"]
Outcome = Literal["success", "return"]

STD_EPSILON = 1e-6  # unit of outcome; keeps the division finite, as in verl and the official code


def episode_outcome(table: TurnTable, outcome: Outcome) -> FloatArray:
    """What an episode is judged by, shape [episodes]: its success flag (0 or 1), or its undiscounted return."""
    return table.episode_success if outcome == "success" else table.episode_return


def episode_weight(table: TurnTable, mean_over: MeanOver) -> FloatArray:
    """Weight of each episode in the statistics of its group, shape [episodes]: 1, or its number of turns."""
    if mean_over == "episodes":
        return np.ones(table.num_episodes)
    return table.episode_length.astype(np.float64)


def group_mean(table: TurnTable, values: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted mean over the episodes of each group, shape [groups]."""
    total = np.bincount(table.episode_group, weights=weight * values, minlength=table.num_groups)
    return total / np.bincount(table.episode_group, weights=weight, minlength=table.num_groups)


def centred(table: TurnTable, values: FloatArray, weight: FloatArray) -> FloatArray:
    """Each episode's value minus its group's mean, shape [episodes]; exactly 0 where all episodes of a group agree."""
    difference = values - group_mean(table, values, weight)[table.episode_group]
    return np.where(_constant(table, values)[table.episode_group], 0.0, difference)


def group_std(table: TurnTable, difference: FloatArray, weight: FloatArray) -> FloatArray:
    """Standard deviation with Bessel's correction of each group, shape [groups]; 0 for a group of one.

    Args:
        table: the turns.
        difference: `centred` values, shape [episodes].
        weight: as given to `centred`, shape [episodes].
    """
    squares = np.bincount(table.episode_group, weights=weight * difference**2, minlength=table.num_groups)
    size = np.bincount(table.episode_group, weights=weight, minlength=table.num_groups)
    return np.sqrt(squares / np.maximum(size - 1.0, 1.0))


def relative_outcome(table: TurnTable, values: FloatArray, *, normalize_std: bool, mean_over: MeanOver) -> FloatArray:
    """`A_z = (R - mean) / (std + eps)` over the episodes of a group, or `R - mean` without the std; shape [episodes].

    A group of one, and a group whose episodes all came out the same, gets zero: nothing to compare.
    """
    weight = episode_weight(table, mean_over)
    difference = centred(table, values, weight)
    if not normalize_std:
        return difference
    return difference / (group_std(table, difference, weight)[table.episode_group] + STD_EPSILON)


def _constant(table: TurnTable, values: FloatArray) -> np.ndarray:
    low = np.full(table.num_groups, np.inf)
    high = np.full(table.num_groups, -np.inf)
    np.minimum.at(low, table.episode_group, values)
    np.maximum.at(high, table.episode_group, values)
    return low == high
