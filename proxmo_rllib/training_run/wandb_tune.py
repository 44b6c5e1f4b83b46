"""Ray's W&B callback for Tune, without its race. Written for Ray 2.60 and wandb 0.31; touches Ray's private names."""

from __future__ import annotations

from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor


class _PatientActor(_WandbLoggingActor):  # type: ignore[misc]
    """Ends when all of the run has been written.

    Ray kills the actor, and W&B's own process with it, as soon as `run` returns, and wandb's `finish` does not wait for
    that process: now and then the last trial's metrics were lost.
    """

    def run(self) -> None:
        super().run()
        self._wandb.teardown()


class TuneWandbCallback(WandbLoggerCallback):  # type: ignore[misc]
    """One W&B run a trial; see Ray's `WandbLoggerCallback` for its arguments."""

    _logger_actor_cls = _PatientActor
