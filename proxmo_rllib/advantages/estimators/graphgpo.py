"""GraphGPO: how near to success a turn led, on the graph of its group (Cheng et al. 2026, arXiv:2605.26684)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from proxmo_rllib.advantages.anchor_groups import anchor_groups
from proxmo_rllib.advantages.episode import MeanOver, Outcome
from proxmo_rllib.advantages.estimators.gigpo import group_in_group
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.table import FloatArray, TurnTable


@register_estimator("graphgpo")
def graphgpo(
    table: TurnTable,
    *,
    distance_decay: float = 0.1,
    step_weight: float = 1.0,
    normalization: Literal["mean", "mean_std"] = "mean_std",
    outcome: Outcome = "success",
    episode_mean_over: MeanOver = "episodes",
) -> Advantages:
    """`A(t) = (R_i - mean R) / F + omega * (q_t - mean q) / F'`, with `q_t = decay^d(s_{t+1})`.

    The anchors of a group of episodes are the nodes of a graph, and its turns the edges, from each anchor to the next
    of the episode; the last turn of a successful episode leads to success. `d` is the smallest number of turns from a
    node to success over all episodes. From where no way is known it is one more than the largest that is. The mean of
    `q` is over the turns with the same anchor, that of `R` over the episodes of the group; `F` and `F'` are the
    standard deviations (plus 1e-6) with "mean_std" and 1 with "mean".

    Assumes that the same observation is the same state, so that parts of different episodes may be put together.
    Without a success in the group there is no step advantage, and neither is where nobody else has the anchor. Where an
    episode fails, what its last turn led to is not in the table: no way is known from there.

    Args:
        table: the turns.
        distance_decay: omega in the paper, gamma in its code: what a turn more to success costs, as a factor.
        step_weight: of the step advantage.
        normalization: subtract the mean, or also divide by the std (Bessel's correction).
        outcome: judge an episode by its success (0 or 1), or by its undiscounted return (unit of reward).
        episode_mean_over: mean and std of the outcomes over episodes, or over turns as in the authors' code.
    """
    values = distance_decay ** distances_after(table)
    return group_in_group(table, values, step_weight, normalization, outcome, episode_mean_over)


def distances_after(table: TurnTable) -> FloatArray:
    """Turns from what each turn led to until success, by the shortest way over all episodes of its group.

    Args:
        table: the turns.

    Returns:
        float64 [turns]: 0 for the turn that succeeds; one more than the group's largest where no way is known.
    """
    node = anchor_groups(table)
    inner = np.flatnonzero(table.next_turn >= 0)
    target = node[table.next_turn[inner]]
    last = np.flatnonzero(table.next_turn < 0)
    won = last[table.episode_success[table.episode_of[last]] > 0]
    distance = np.full(int(node.max()) + 1, np.inf)
    distance[node[won]] = 1.0
    # From success backwards, a turn more each time.
    while True:
        shorter = distance.copy()
        np.minimum.at(shorter, node[inner], distance[target] + 1.0)
        if np.array_equal(shorter, distance):
            break
        distance = shorter
    after = np.full(len(table), np.inf)
    after[inner] = distance[target]
    after[won] = 0.0
    known = np.isfinite(distance[node])
    farthest = np.zeros(table.num_groups)
    np.maximum.at(farthest, table.group_of[known], distance[node[known]])
    return np.where(np.isfinite(after), after, farthest[table.group_of] + 1.0)
