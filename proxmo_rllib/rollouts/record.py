"""An episode as one JSON object, for the run's record and whoever reads it."""

from __future__ import annotations

from typing import Any

from proxmo_rllib.types import Episode


def episode_record(episode: Episode, iteration: int) -> dict[str, Any]:
    """What happened, as text and numbers; token ids are left out.

    Args:
        episode: the episode.
        iteration: training iteration that played it, from 1.
    """
    return {
        "iteration": iteration,
        "episode": episode.episode_id,
        "group": episode.group_id,
        "task": episode.task,
        "task_type": episode.task_type,
        "status": episode.status.value,
        "return": episode.episode_return,
        "score": episode.score,
        "error": episode.error,
        "turns": [
            {
                "observation": turn.anchor,
                "response": turn.response,
                "action": turn.action,
                "valid": turn.action_valid,
                "reward": turn.reward,
                "version": turn.policy_version,
                "logprob": float(turn.logprobs.sum()),
            }
            | ({"version_changes": [list(change) for change in turn.version_changes]} if turn.version_changes else {})
            for turn in episode.turns
        ],
    }
