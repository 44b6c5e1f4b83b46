"""From the nested result of an RLlib iteration to flat numbers for files, and to the few that people watch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxmo_rllib.evaluation.intervals import wilson_interval
from proxmo_rllib.exact_stats import HISTOGRAMS
from proxmo_rllib.metrics_file import NOT_MEASURED


def histograms(result: Mapping[str, Any], prefix: str = "") -> dict[str, Sequence[float]]:
    """The lists of values of a nested result under keys like "env_runners/histograms/episode_len".

    Args:
        result: of `Algorithm.train`; it has them with `log_histograms`.
        prefix: of the keys.
    """
    found: dict[str, Sequence[float]] = {}
    for key, value in result.items():
        if key == HISTOGRAMS:
            found |= {f"{prefix}{key}/{name}": values for name, values in value.items()}
        elif isinstance(value, Mapping) and (prefix or key not in NOT_MEASURED):
            found |= histograms(value, f"{prefix}{key}/")
    return found


@dataclass(frozen=True, slots=True)
class PanelScore:
    """Success on the panel."""

    successes: int
    episodes: int
    seconds: float
    independent: float | None = None  # what the episodes are worth, some being repetitions; None: all are independent
    errors: int = 0  # episodes that broke, which are not among them

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> PanelScore | None:
        """Reads what `PanelResult.as_metrics` wrote; None if nothing was evaluated."""
        if "success_rate" not in metrics:
            return None
        episodes = int(metrics["num_episodes"])
        independent = metrics.get("num_independent_episodes")
        return cls(
            successes=round(metrics["success_rate"] * episodes),
            episodes=episodes,
            seconds=float(metrics["seconds"]),
            independent=independent,
            errors=int(metrics.get("num_errors", 0)),
        )

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95%, Wilson's."""
        independent = self.episodes if self.independent is None else self.independent
        return wilson_interval(self.rate * independent, independent)

    def __str__(self) -> str:
        low, high = self.interval
        broke = f", {self.errors} broke" if self.errors else ""
        return f"{self.rate:.1%} [{low:.1%}, {high:.1%}] ({self.successes}/{self.episodes}{broke})"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a person watches of one iteration."""

    iteration: int
    minutes: float  # wall time since the start of the run
    successes: int
    episodes: int
    episode_return: float  # mean, unit of reward
    turns: float  # mean of an episode
    invalid_rate: float  # share of turns
    errors: int  # episodes that broke
    sampling_s: float
    learning_s: float
    transfer_s: float
    rollout_tokens_per_s: float  # sampled tokens
    learner_tokens_per_s: float  # tokens trained on, prompts included
    policy_version: int  # optimizer steps
    weight_error: float  # largest difference of a logprob between engine and learner after the transfer
    panel: PanelScore | None = None
    histograms: Mapping[str, Sequence[float]] = field(default_factory=dict)  # values by metric

    @classmethod
    def from_result(cls, result: Mapping[str, Any], minutes: float) -> Progress:
        """Reads a result of `ProxMO.train`."""
        rollouts = result.get("env_runners", {})
        timers = result.get("timers", {})
        learner = result.get("learners", {}).get("default_policy", {})
        turns = rollouts.get("num_env_steps_sampled", 0)
        sampling = float(timers.get("env_runner_sampling_timer", 0.0))
        learning = float(timers.get("learner_update_timer", 0.0))
        return cls(
            iteration=int(result["training_iteration"]),
            minutes=minutes,
            successes=int(rollouts.get("num_successes", 0)),
            episodes=int(rollouts.get("num_episodes", 0)),
            episode_return=float(rollouts.get("episode_return_mean", math.nan)),
            turns=float(rollouts.get("episode_len_mean", math.nan)),
            invalid_rate=_ratio(rollouts.get("num_invalid_actions", 0), turns),
            errors=int(rollouts.get("num_errors", 0)),
            sampling_s=sampling,
            learning_s=learning,
            transfer_s=float(timers.get("synch_weights", 0.0)),
            rollout_tokens_per_s=_ratio(rollouts.get("num_response_tokens", 0), sampling),
            learner_tokens_per_s=_ratio(learner.get("num_tokens_trained", 0), learning),
            policy_version=int(result.get("policy_version", 0)),
            weight_error=float(result.get("weight_transfer_error", math.nan)),
            panel=PanelScore.from_metrics(result.get("evaluation", {})),
            histograms=histograms(result),
        )

    @property
    def success_rate(self) -> float:
        return _ratio(self.successes, self.episodes)

    @property
    def interval(self) -> tuple[float, float]:
        """95%, Wilson's; over the iteration's episodes, which come in groups of one task."""
        return wilson_interval(self.successes, self.episodes)

    def as_metrics(self) -> dict[str, float | None]:
        """The numbers that a result has not, by name. A rate of nothing (no episode, no second) is left out."""
        numbers = {
            "iteration": self.iteration,
            "minutes": self.minutes,
            "rollout_tokens_per_second": self.rollout_tokens_per_s,
            "learner_tokens_per_second": self.learner_tokens_per_s,
        }
        if self.episodes:
            numbers |= {"success_low": self.interval[0], "success_high": self.interval[1]}
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    @property
    def evaluation_s(self) -> float:
        return 0.0 if self.panel is None else self.panel.seconds


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan
