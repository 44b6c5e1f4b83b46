"""Playing a fixed panel of tasks and saying how well it went."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from env_wrappers.panels import Panel
from proxmo_rllib.evaluation.intervals import independent_trials, wilson_interval
from proxmo_rllib.types import Assignment, Episode, Group, Status


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """Successes among episodes, with a 95% interval that knows which of them are repetitions of one task."""

    successes: int
    episodes: int
    independent: float  # what the episodes are worth: their number where each is of another task

    @property
    def rate(self) -> float:
        return self.successes / self.episodes if self.episodes else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.rate * self.independent if self.episodes else 0, self.independent)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.1%} [{low:.1%}, {high:.1%}] ({self.successes}/{self.episodes})"


@dataclass(frozen=True, slots=True)
class PanelResult:
    """How a policy did on a panel. Episodes with errors are counted and otherwise left out."""

    panel: str  # name and digest
    overall: SuccessRate
    by_task_type: dict[str, SuccessRate]
    num_errors: int
    mean_turns: float
    invalid_action_rate: float
    mean_return: float
    seconds: float
    episodes: tuple[Episode, ...]

    def as_metrics(self) -> dict[str, Any]:
        """Nested numbers, as RLlib reports them under `evaluation`."""
        return {
            **_rate_metrics(self.overall),
            "num_errors": self.num_errors,
            "episode_len_mean": self.mean_turns,
            "episode_return_mean": self.mean_return,
            "invalid_action_rate": self.invalid_action_rate,
            "seconds": self.seconds,
            "by_task_type": {name: _rate_metrics(rate) for name, rate in self.by_task_type.items()},
            # Where RLlib's users and schedulers look for it.
            "env_runners": {"episode_return_mean": self.mean_return, "episode_len_mean": self.mean_turns},
        }


def panel_assignments(panel: Panel, repeats: int) -> list[Assignment]:
    """One group a task. The seeds come from the panel alone, so that every policy meets the same initial states."""
    return [
        Assignment(
            group_id=f"{panel.name}-{index}",
            task=task,
            seed=random.Random(f"{panel.digest}-{index}").randrange(2**31),
            size=repeats,
        )
        for index, task in enumerate(panel.tasks)
    ]


def summarise(panel: Panel, groups: Sequence[Group], seconds: float) -> PanelResult:
    """Statistics of the groups that played the panel.

    Raises:
        RuntimeError: every episode broke.
    """
    everything = [episode for group in groups for episode in group.episodes]
    episodes = [episode for episode in everything if episode.status is not Status.ERROR]
    if not episodes:
        first = next((episode.error for episode in everything if episode.error), "no environment runner answered")
        raise RuntimeError(f"No episode of panel {panel.name!r} could be played; the first error: {first}")
    turns = [turn for episode in episodes for turn in episode.turns]
    kinds = sorted({episode.task_type for episode in episodes if episode.task_type})
    return PanelResult(
        panel=f"{panel.name}@{panel.digest[:12]}",
        overall=_rate(episodes),
        by_task_type={kind: _rate([e for e in episodes if e.task_type == kind]) for kind in kinds},
        num_errors=len(everything) - len(episodes),
        mean_turns=sum(len(e) for e in episodes) / len(episodes),
        invalid_action_rate=sum(not t.action_valid for t in turns) / max(1, len(turns)),
        mean_return=sum(e.episode_return for e in episodes) / len(episodes),
        seconds=seconds,
        episodes=tuple(episodes),
    )


def _rate(episodes: Sequence[Episode]) -> SuccessRate:
    counts: dict[str, tuple[int, int]] = {}
    for episode in episodes:
        successes, tries = counts.get(episode.task, (0, 0))
        counts[episode.task] = (successes + episode.success, tries + 1)
    successes = sum(count for count, _ in counts.values())
    return SuccessRate(successes, len(episodes), independent_trials(list(counts.values())))


def _rate_metrics(rate: SuccessRate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        "success_rate": rate.rate,
        "success_low": low,
        "success_high": high,
        "num_episodes": rate.episodes,
        "num_independent_episodes": rate.independent,
    }
