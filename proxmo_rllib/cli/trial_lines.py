"""What a person sees of a search while it runs: one line a result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console

from proxmo_rllib.training_run.progress import flatten


class TrialLines(Callback):  # type: ignore[misc]
    """Prints a line when a trial starts, reports and ends.

    Args:
        console: to print to; None for one of its own, which it is with when Tune restores it.
        varied: the settings that tell trials apart; "env_config/max_objects" within a dictionary.
    """

    def __init__(self, console: Console | None, varied: Sequence[str]) -> None:
        self._console = console or Console(highlight=False)
        self._varied = tuple(varied)

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune keeps its callbacks in a file, and a terminal cannot be kept."""
        return TrialLines, (None, self._varied)

    def _say(self, trial: Trial, text: str, style: str | None = None) -> None:
        self._console.print(f"{trial.trial_id}  {text}", style=style, markup=False)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Say what it varies."""
        settings = (f"{name}={_entry(trial.config, name)}" for name in self._varied)
        self._say(trial, f"starts: {', '.join(settings)}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Say how it does."""
        numbers = flatten(result)
        text = f"iteration {result['training_iteration']}"
        for name, key in (("success", "env_runners/success_rate"), ("panel", "evaluation/success_rate")):
            rate = numbers.get(key)
            if rate is not None and not math.isnan(rate):
                text += f"  {name} {rate:.1%}"
        self._say(trial, f"{text}  {result['time_total_s']:.0f} s")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Say how many are done."""
        done = sum(other is trial or other.is_finished() for other in trials)
        self._say(trial, f"ended; {done} of {len(trials)} trials so far are done")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Say where the reason is."""
        self._say(trial, f"failed; see {trial.error_file}", "red")


def _entry(settings: Any, name: str) -> Any:
    for part in name.split("/"):
        settings = settings[part]
    return settings
