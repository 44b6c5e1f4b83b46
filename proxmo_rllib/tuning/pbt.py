"""Population-based training whose trials keep their processes. Written for Ray 2.60; touches Ray's private names.

Where a trial takes another's weights, Tune pauses it and starts it again. Even with `reuse_actors=True` it keeps the
processes of a trial that pauses only where another is about to start. With all trials under way none is, and engines
that took half a minute to start are ended for nothing.
"""

from __future__ import annotations

from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler


class InPlacePBT(PopulationBasedTraining):  # type: ignore[misc]
    """`ray.tune.schedulers.PopulationBasedTraining` (arXiv 1711.09846), in which no trial's engines start anew.

    A trial that pauses, to take over a better one's weights or, with `synch=True`, to wait for the others, counts as
    one that is about to start, so that Tune keeps its processes for it, or for another trial that goes on before it.
    Needs `TuneConfig(reuse_actors=True)`, as `proxmo tune` has it. Arguments are Ray's.
    """

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Ray's decision, with the trial's processes kept where it pauses."""
        staged, cache = tune_controller._staged_trials, tune_controller._actor_cache
        staged.add(trial)
        cache.increase_max(trial.placement_group_factory)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if trial.status != Trial.PAUSED and decision != TrialScheduler.PAUSE:
            staged.remove(trial)
            cache.decrease_max(trial.placement_group_factory)
        return decision
