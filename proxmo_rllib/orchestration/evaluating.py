"""A policy that is only evaluated: engines in Ray, the episodes in this process, no learner."""

from __future__ import annotations

import time
from typing import Any

from env_wrappers.panels import Panel
from proxmo_rllib import activity
from proxmo_rllib.evaluation.panels import PanelResult, panel_assignments, summarise
from proxmo_rllib.faults import FaultLog
from proxmo_rllib.inference.engine import EngineConfig
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.orchestration.dealing import Dealer
from proxmo_rllib.orchestration.watch import Watch, engine_parts
from proxmo_rllib.rollouts import TextEnvRunner
from proxmo_rllib.types import Assignment


class Evaluator:
    """Engines, and who plays with them.

    Args:
        config: a ProxMOConfig.
        engine_config: how to build each engine.

    Raises:
        TimeoutError: engines were not ready in time.
        EngineDeadError: an engine could not be built.
    """

    def __init__(self, config: Any, engine_config: EngineConfig) -> None:
        self._config = config
        self._faults = FaultLog()
        self._pool = InferencePool(
            engine_config,
            config.num_engines,
            startup_timeout_s=config.engine_startup_timeout_s,
            request_timeout_s=config.request_timeout_s,
            faults=self._faults,
        )
        self._runner = TextEnvRunner(config=config)
        self._watch = Watch(lambda: engine_parts(self._pool), self._faults, config.silence_timeout_s)
        self._watch.start()

    def play(self, panel: Panel) -> PanelResult:
        """Plays all tasks of a panel; those whose engine died are played again.

        What cannot be played is missing in the result, with the reason (`PanelResult.shortfall`).
        """
        config = self._config
        started = time.perf_counter()
        assignments = panel_assignments(panel, config.panel_repeats)
        activity.begin("playing the panel", len(assignments) * config.panel_repeats)

        def play(runner: Any, share: list[Assignment], seconds: float | None) -> tuple[Any, None]:
            return runner.play(share, temperature=config.panel_temperature, panel=panel, seconds=seconds), None

        dealt = Dealer(None, self._runner, self._heal, self._faults).play(assignments, play, config.sample_timeout_s)
        seconds = time.perf_counter() - started
        return summarise(panel, dealt.groups(assignments), seconds=seconds, lost=dealt.dropped)

    def _heal(self) -> None:
        self._pool.heal()
        self._runner.connect(self._pool.client())

    def stop(self) -> None:
        """Ends the engines."""
        self._watch.stop()
        self._runner.stop()
        self._pool.stop()
