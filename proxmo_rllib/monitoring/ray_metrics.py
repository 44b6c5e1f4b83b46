"""A run's own numbers among Ray's metrics, where Prometheus reads them: a gauge each, `ray_proxmo_...{run="NAME"}`.

Every node of a Ray cluster answers with its metrics on a port of its own; Ray lists them for Prometheus in a file. A
gauge is a number in memory that Ray reads every ten seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.util.metrics import Gauge

from proxmo_rllib.training_run.progress import PanelScore, Progress

#: Of a run, by the name of its gauge: what it is.
GAUGES = {
    "proxmo_iteration": "Iterations that are over",
    "proxmo_success_rate": "Share of the iteration's episodes that solved their task",
    "proxmo_episode_return": "Mean return of the iteration's episodes, in units of reward",
    "proxmo_episode_errors": "Episodes of the iteration that broke",
    "proxmo_panel_success_rate": "Share of the panel's episodes that solved their task, when it was last played",
    "proxmo_iteration_seconds": "Wall time of the iteration, sampling, learning and transfer together",
    "proxmo_rollout_tokens_per_second": "Sampled tokens a second, while episodes are played",
    "proxmo_learner_tokens_per_second": "Tokens trained on a second, prompts included, while it learns",
    "proxmo_policy_version": "Optimizer steps",
}


class RayMetrics:
    """Shows a run's newest numbers to Prometheus. An observer; Ray has to run.

    Args:
        run: its name, which is the gauges' tag.
    """

    def __init__(self, run: str) -> None:
        self._gauges = {name: Gauge(name, what, tag_keys=("run",)) for name, what in GAUGES.items()}
        self._tags = {"run": run}

    def on_panel(self, score: PanelScore, iteration: int) -> None:
        """The panel was played before the first iteration."""
        self._show({"proxmo_panel_success_rate": score.rate, "proxmo_iteration": iteration})

    def on_iteration(
        self, progress: Progress, metrics: Mapping[str, float | None], episodes: Sequence[Mapping[str, Any]]
    ) -> None:
        """An iteration is over."""
        numbers = {
            "proxmo_iteration": progress.iteration,
            "proxmo_success_rate": progress.success_rate,
            "proxmo_episode_return": progress.episode_return,
            "proxmo_episode_errors": progress.errors,
            "proxmo_iteration_seconds": progress.sampling_s + progress.learning_s + progress.transfer_s,
            "proxmo_rollout_tokens_per_second": progress.rollout_tokens_per_s,
            "proxmo_learner_tokens_per_second": progress.learner_tokens_per_s,
            "proxmo_policy_version": progress.policy_version,
        }
        if progress.panel is not None:
            numbers["proxmo_panel_success_rate"] = progress.panel.rate
        self._show(numbers)

    def on_checkpoint(self, checkpoint: Path) -> None:
        """They have no room for checkpoints."""

    def _show(self, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            if math.isfinite(number):
                self._gauges[name].set(number, tags=self._tags)
