"""Ray's W&B callback for Tune, with the runs in the driver. Written for Ray 2.60 and wandb 0.31; touches Ray's private
names."""

from __future__ import annotations

from typing import Any

from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.experiment import Trial

from proxmo_rllib.training_run.progress import flatten
from proxmo_rllib.training_run.wandb_run import WandbRun


class TuneWandbCallback(WandbLoggerCallback):  # type: ignore[misc]
    """One W&B run a trial, with the trial's settings and, at each iteration, its metrics.

    Ray's own callback keeps each run in an actor, since a process once had room for one. It kills the actor, and W&B's
    own process with it, while that still writes: a short trial's metrics were lost now and then. Here the runs are in
    the driver, side by side, and W&B waits for what is unwritten when the driver ends.

    Args:
        project: of W&B.
        init: more arguments of `wandb.init`.
    """

    def __init__(self, project: str, **init: Any) -> None:
        super().__init__(project, **init)
        self._runs: dict[Trial, WandbRun] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        """What Tune calls before the first trial. Ray's own ends the search where there is no key."""

    def _start_logging_actor(self, trial: Trial, exclude_results: list[str], **init: Any) -> None:
        """What Ray's `log_trial_start` calls, with the arguments of `wandb.init`."""
        if trial in self._runs:  # it failed, and goes on
            return
        self._runs[trial] = WandbRun(**init | {"reinit": "create_new"})

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log a result's numbers under its iteration."""
        numbers = {key: value for key, value in flatten(result).items() if value is not None}
        self._runs[trial].log(numbers, step=iteration)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the trial's run, as failed if it did."""
        run = self._runs.pop(trial, None)
        if run is not None:
            run.finish(exit_code=int(failed))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """End the runs of trials that did not come to an end."""
        for trial in list(self._runs):
            self.log_trial_end(trial, failed=True)
