"""Engines that are being started: placed by Ray, then loading their model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from proxmo_rllib.inference.engine import EngineConfig, EngineDeadError
from proxmo_rllib.machine.actors import ACTOR_DEATHS, describe_waiting

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 10.0


@dataclass(slots=True)
class Newcomer:
    """An engine that is being started in the place of another.

    Attributes:
        handle: of its actor.
        ready: its answer when it has loaded the model.
        since: time.monotonic() of its start.
    """

    handle: ActorHandle
    ready: ray.ObjectRef = field(init=False)
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.ready = self.handle.check_health.remote()


def wait_until_ready(
    engines: Mapping[int, ActorHandle], config: EngineConfig, timeout_s: float, at_least: int | None = None
) -> None:
    """Waits for engines to answer, saying every few seconds for what.

    Args:
        engines: their actors, by rank.
        config: of each.
        timeout_s: seconds for all of them.
        at_least: so many of them; None for all, each of which has to have started well.

    Raises:
        EngineDeadError: of all, one did not start; says why.
        TimeoutError: says what they waited for.
    """
    start = time.monotonic()
    waiting = {handle.check_health.remote(): rank for rank, handle in engines.items()}
    enough = 0 if at_least is None else len(engines) - at_least
    while len(waiting) > enough:
        left = timeout_s - (time.monotonic() - start)
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, min(_REPORT_EVERY_S, left)))
        elapsed = time.monotonic() - start
        for call in ready:
            rank = waiting.pop(call)
            try:
                ray.get(call)
            except (*ACTOR_DEATHS, EngineDeadError) as error:
                if at_least is None:
                    raise EngineDeadError(f"Engine {rank} did not start: {_last_line(error)}") from error
                continue
            logger.info("Engine %d is ready after %.0f s.", rank, elapsed)
        if not ready and elapsed >= timeout_s:
            raise TimeoutError(f"After {elapsed:.0f} s {_not_ready(engines, waiting.values(), config)}")
        if not ready:
            logger.info("After %.0f s %s", elapsed, _not_ready(engines, waiting.values(), config))


def _not_ready(engines: Mapping[int, ActorHandle], waiting: Iterable[int], config: EngineConfig) -> str:
    """Who is waited for, and for what these wait."""
    ranks = sorted(waiting)
    free = ray.available_resources()
    return (
        f"engines {ranks} ({config.kind}, {config.model}) are not ready: "
        f"{describe_waiting([engines[rank] for rank in ranks])}. Each reserves {config.num_cpus:g} CPU and "
        f"{config.num_gpus:g} GPU; free in the cluster are {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} "
        "GPU. If they wait for a place, lower num_engines, num_cpus or num_gpus; if the model is large or the "
        "machine busy, raise startup_timeout_s."
    )


def _last_line(error: Exception) -> str:
    """What the actor's constructor raised, from the end of the traceback that Ray quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
