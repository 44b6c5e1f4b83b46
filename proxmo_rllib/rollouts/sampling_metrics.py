"""What the rollouts log: RLlib's usual names, and the counts behind every rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
)

from proxmo_rllib.types import Episode, Group, Status


def log_groups(metrics: Any, groups: Sequence[Group], seconds: float) -> None:
    """Logs the statistics of finished groups.

    Args:
        metrics: RLlib's MetricsLogger of the environment runner.
        groups: what has been played; episodes with errors are counted and otherwise left out.
        seconds: wall time it took.
    """
    everything = [episode for group in groups for episode in group.episodes]
    episodes = [episode for episode in everything if episode.status is not Status.ERROR]
    sums = _sums(everything, episodes)
    for key, value in sums.items():
        metrics.log_value(key, value, reduce="sum")
    lifetime = {NUM_ENV_STEPS_SAMPLED_LIFETIME: sums[NUM_ENV_STEPS_SAMPLED], NUM_EPISODES_LIFETIME: sums[NUM_EPISODES]}
    for key, value in lifetime.items():
        metrics.log_value(key, value, reduce="lifetime_sum")
    for key, mean in _means(episodes).items():
        metrics.log_value(key, mean, reduce="mean", window=1)
    if seconds > 0:
        metrics.log_value("response_tokens_per_second", sums["num_response_tokens"] / seconds, reduce="mean", window=1)
        metrics.log_value("turns_per_second", sums[NUM_ENV_STEPS_SAMPLED] / seconds, reduce="mean", window=1)


def _sums(everything: Sequence[Episode], episodes: Sequence[Episode]) -> dict[str, int]:
    return {
        NUM_EPISODES: len(episodes),
        NUM_ENV_STEPS_SAMPLED: sum(len(e) for e in episodes),
        "num_successes": sum(e.success for e in episodes),
        "num_truncated": sum(e.status is Status.TRUNCATED for e in episodes),
        "num_errors": len(everything) - len(episodes),
        "num_invalid_actions": sum(not t.action_valid for e in episodes for t in e.turns),
        "num_response_tokens": sum(e.num_response_tokens for e in episodes),
        "num_tokens": sum(e.num_tokens for e in episodes),
    }


def _means(episodes: Sequence[Episode]) -> dict[str, float]:
    if not episodes:
        return {}
    turns = [turn for episode in episodes for turn in episode.turns]
    means = {
        EPISODE_RETURN_MEAN: np.mean([e.episode_return for e in episodes]),
        EPISODE_LEN_MEAN: np.mean([len(e) for e in episodes]),
        "success_rate": np.mean([e.success for e in episodes]),
        "truncated_rate": np.mean([e.status is Status.TRUNCATED for e in episodes]),
        "response_length_mean": np.mean([len(t.response_ids) for t in turns]) if turns else 0.0,
        "invalid_action_rate": np.mean([not t.action_valid for t in turns]) if turns else 0.0,
        "behaviour_logprob_mean": np.mean(np.concatenate([t.logprobs for t in turns])) if turns else 0.0,
    }
    scores = [e.score for e in episodes if e.score is not None]
    if scores:
        means["score_mean"] = np.mean(scores)
    return {key: float(value) for key, value in means.items()}
