"""The estimators that are audited: those of `proxmo_rllib.advantages`, and a few to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from proxmo_rllib.advantages import Advantages, TurnTable, returns_to_go
from proxmo_rllib.advantages.registry import Estimator
from proxmo_rllib.advantages.table import FloatArray


class Method(NamedTuple):
    """An estimator with its options."""

    estimator: str | Estimator
    options: Mapping[str, Any] = {}


def plain(table: TurnTable) -> Advantages:
    """REINFORCE without a baseline: each turn gets the return of its episode."""
    return Advantages.build(table, episode=table.episode_return, returns=returns_to_go(table, 1.0))


def to_go(table: TurnTable) -> Advantages:
    """REINFORCE without a baseline: each turn gets the undiscounted return to go."""
    returns = returns_to_go(table, 1.0)
    return Advantages.build(table, episode=0 * table.episode_success, step=returns, returns=returns)


def by_turn_index(table: TurnTable) -> Advantages:
    """The sum over this and later turns of reward minus the mean of that turn's rewards over the group's episodes.

    The natural way to make advantages of rewards by turn (MT-GRPO, Wei et al. 2025). The mean is over the episodes
    that have such a turn, and the sum ends with the episode: the policy chooses how much is subtracted.
    """
    advantages = _to_the_end(table, np.asarray(table.reward) - _mean_by_turn(table)[table.group_of, table.time_step])
    return Advantages.build(
        table, episode=0 * table.episode_success, step=advantages, returns=returns_to_go(table, 1.0)
    )


def by_turn_index_padded(table: TurnTable) -> Advantages:
    """The same with a baseline that does not depend on when the episode ended: an ended one is paid 0 a turn.

    Return to go minus the mean over all episodes of the group of what they were paid from that turn on.
    """
    reward = np.zeros((len(table.episode_length), int(table.episode_length.max())))
    reward[table.episode_of, table.time_step] = table.reward
    returns = np.cumsum(reward[:, ::-1], axis=1)[:, ::-1]
    size = np.bincount(table.episode_group)[:, None]
    mean = np.zeros((len(size), reward.shape[1]))
    np.add.at(mean, table.episode_group, returns)
    step = returns[table.episode_of, table.time_step] - (mean / size)[table.group_of, table.time_step]
    return Advantages.build(table, episode=0 * table.episode_success, step=step, returns=returns_to_go(table, 1.0))


def _mean_by_turn(table: TurnTable) -> FloatArray:
    """Mean reward by group and time step over the episodes that got there, shape [groups, steps]."""
    shape = len(table.group_ids), int(table.time_step.max()) + 1
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (table.group_of, table.time_step), table.reward)
    np.add.at(count, (table.group_of, table.time_step), 1.0)
    return total / np.maximum(count, 1.0)  # type: ignore[no-any-return]


def _to_the_end(table: TurnTable, values: FloatArray) -> FloatArray:
    """The sum of a value over this and the later turns of the episode, shape [turns]."""
    shape = len(table.episode_length), int(table.episode_length.max())
    padded = np.zeros(shape)
    padded[table.episode_of, table.time_step] = values
    sums: FloatArray = np.cumsum(padded[:, ::-1], axis=1)[:, ::-1]
    return sums[table.episode_of, table.time_step]


#: What is compared in every world.
METHODS: Mapping[str, Method] = {
    "REINFORCE": Method(plain),
    "REINFORCE, return to go": Method(to_go),
    "RLOO": Method("rloo"),
    "Dr. GRPO": Method("dr_grpo"),
    "GRPO": Method("grpo"),
    "REINFORCE++ with baseline": Method("reinforce_plus_plus_baseline"),
    "MaxRL": Method("maxrl"),
    "GiGPO": Method("gigpo"),
    "GiGPO, without std": Method("gigpo", {"normalization": "mean"}),
    "HGPO": Method("hgpo"),
    "HGPO, without std": Method("hgpo", {"normalization": "mean"}),
    "GraphGPO": Method("graphgpo"),
    "GraphGPO, without std": Method("graphgpo", {"normalization": "mean"}),
    "ProxMO": Method("proxmo"),
    "ProxMO, without std": Method("proxmo", {"normalize_std": False}),
    "ProxMO, without modulation": Method("proxmo_without_modulation"),
    "ProxMO, exact anchors": Method("proxmo_without_aggregation"),
    "ProxMO, without self": Method("proxmo", {"include_self": False}),
    "ProxMO, same step": Method("proxmo", {"time_pooling": "step"}),
    "ProxMO, gamma 1": Method("proxmo", {"gamma": 1.0}),
    "ProxMO, official arithmetic": Method("proxmo_official"),
}

#: What is compared where turns in between are paid.
BY_TURN: Mapping[str, Method] = {
    "RLOO, of the return": Method("rloo", {"outcome": "return"}),
    "by turn index": Method(by_turn_index),
    "by turn index, ended episodes counted": Method(by_turn_index_padded),
}
