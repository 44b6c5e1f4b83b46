"""Ray's W&B callback for Tune, with the runs in the driver. Written for Ray 2.60 and wandb 0.31; touches Ray's private
names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.experiment import Trial

from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.monitoring.wandb_run import STEP, WandbRun
from proxmo_rllib.training_run.folder import readable_config
from proxmo_rllib.training_run.progress import histograms


class TuneWandbCallback(WandbLoggerCallback):  # type: ignore[misc]
    """One W&B run a trial, named by what is searched, with the trial's settings and, at each iteration, its metrics.

    The runs of a sweep are a group, of the sweep's name.

    Ray's own callback keeps each run in an actor, since a process once had room for one. It kills the actor, and W&B's
    own process with it, while that still writes: a short trial's metrics were lost now and then. Here the runs are in
    the driver, side by side, and W&B waits for what is unwritten when the driver ends.

    Args:
        project: of W&B.
        searched: names of the settings that differ, such as "psc_beta" or "env_config/max_objects".
        init: more arguments of `wandb.init`, such as `tags`.
    """

    def __init__(self, project: str, searched: Sequence[str] = (), **init: Any) -> None:
        super().__init__(project, **init)
        self._searched = tuple(searched)
        self._runs: dict[Trial, WandbRun] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        """What Tune calls before the first trial. Ray's own ends the search where there is no key."""

    def _start_logging_actor(self, trial: Trial, exclude_results: list[str], **init: Any) -> None:
        """What Ray's `log_trial_start` calls, with the arguments of `wandb.init`."""
        if trial in self._runs:  # it failed, and goes on
            return
        init |= {"dir": sweep_folder(trial), "resume": "allow"}  # a sweep that goes on has the same trials
        settings: Any = SimpleNamespace(**trial.config)
        init["config"] = readable_config(settings)
        if self._searched:
            init["name"] = trial_name(trial.config, self._searched)
        self._runs[trial] = WandbRun(**init | {"reinit": "create_new"})

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log a result's numbers and histograms under its iteration; Tune's `iteration` counts its own rounds."""
        self._runs[trial].log(flatten(result), int(result[STEP]), histograms(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the trial's run, as failed if it did."""
        run = self._runs.pop(trial, None)
        if run is not None:
            run.finish(exit_code=int(failed))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """End the runs of trials that did not come to an end."""
        for trial in list(self._runs):
            self.log_trial_end(trial, failed=True)


def sweep_folder(trial: Trial) -> str | None:
    """Where Tune keeps a sweep; None if that is not on this machine's disks."""
    folder = Path(trial.storage.experiment_fs_path)  # of a filesystem that may be another's
    return str(folder) if folder.is_absolute() and folder.is_dir() else None


def trial_name(config: Mapping[str, Any], searched: Sequence[str]) -> str:
    """What tells a trial from the others, such as "psc_beta=0.1, lr=0.0003"; numbers with three digits."""
    parts = []
    for name in searched:
        value: Any = config
        for key in name.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        parts.append(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}")
    return ", ".join(parts)[:128]
