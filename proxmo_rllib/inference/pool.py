"""Several engines as Ray actors: started together, fed with the same weights, replaced when they die.

Algorithm ── InferencePool(config, n) ──► n actors
                  │ client()                ▲  generate(prompt, params, affinity)
                  └────► PoolClient ────────┘  held by each EnvRunner; picklable
             update_weights(blob, version) ──► all engines; then client.expect(version)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from proxmo_rllib.inference.actor import InferenceActor
from proxmo_rllib.inference.client import PoolClient
from proxmo_rllib.inference.engine import EngineConfig, EngineDeadError, StaleEngineError
from proxmo_rllib.machine.actors import describe_waiting

logger = logging.getLogger(__name__)

# Requests beyond max_num_seqs queue in the engine, not in Ray: the engine sees all it could batch.
MAX_CONCURRENCY = 4096
REPORT_EVERY_S = 10.0


class InferencePool:
    """Owns the engines. Lives in the Algorithm; its methods block.

    Attributes:
        num_restarts: engines replaced so far.
    """

    def __init__(
        self,
        config: EngineConfig,
        num_engines: int,
        *,
        version: int = 0,
        startup_timeout_s: float = 300.0,
        update_timeout_s: float = 300.0,
        max_restarts: int = 10,
    ) -> None:
        """Starts all engines in parallel and waits for them.

        Args:
            config: how to build each engine.
            num_engines: how many.
            version: version of the weights in the checkpoint.
            startup_timeout_s: seconds for an engine to be placed and to load its model; raise it for large models.
            update_timeout_s: seconds for all engines to take new weights.
            max_restarts: replacements over the pool's life, after which a dead engine is an error.

        Raises:
            TimeoutError: engines were not ready in time; says what they waited for.
            EngineDeadError: an engine could not be built; says why.
        """
        if num_engines < 1:
            raise ValueError(f"num_engines={num_engines}: the pool needs at least one engine.")
        self._config = config
        self._version = version
        self._startup_timeout_s = startup_timeout_s
        self._update_timeout_s = update_timeout_s
        self._max_restarts = max_restarts
        self._blob: ray.ObjectRef | None = None
        self._bundles = _last_bundles(self.resource_bundles(config, num_engines))
        self.num_restarts = 0
        self._handles: list[ActorHandle] = [self._start(rank, version) for rank in range(num_engines)]
        try:
            self._wait_until_ready(range(num_engines))
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def resource_bundles(config: EngineConfig, num_engines: int) -> list[dict[str, float]]:
        """What the engines need, for a Tune trial's placement group: without it the trial hangs."""
        bundle = {"CPU": config.num_cpus} | ({"GPU": config.num_gpus} if config.num_gpus else {})
        return [dict(bundle) for _ in range(num_engines)]

    @property
    def handles(self) -> list[ActorHandle]:
        """The engines' actors, by rank."""
        return list(self._handles)

    @property
    def version(self) -> int:
        """Version of the newest weights that were given to the engines."""
        return self._version

    def client(self) -> PoolClient:
        """A router for one EnvRunner, which refuses completions older than the present version.

        Cheap: give a new one to each EnvRunner after every update or restart, since it does not learn of them.
        """
        return PoolClient(self._handles, self._version)

    def update_weights(self, weights: np.ndarray | ray.ObjectRef, version: int) -> None:
        """Gives all engines new weights; engines found dead are replaced and get them too.

        Args:
            weights: what `weights.serialise` packed, uint8 [bytes], or a reference to it.
            version: its version: optimizer steps behind it.

        Raises:
            WeightsMismatchError: they do not fit the model. The engines keep the old ones.
            StaleEngineError: an engine then reports another version.
            TimeoutError: an engine did not take them in time.
        """
        blob = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        calls = [handle.update_weights.remote(blob, version) for handle in self._handles]
        deadline = time.monotonic() + self._update_timeout_s
        dead = []
        for rank, call in enumerate(calls):
            try:
                reported = ray.get(call, timeout=max(0.0, deadline - time.monotonic()))
            except (RayActorError, EngineDeadError) as error:
                logger.warning("Engine %d died while it took the weights of version %d: %s", rank, version, error)
                dead.append(rank)
                continue
            except GetTimeoutError as error:
                raise TimeoutError(
                    f"Engine {rank} did not take the weights of version {version} in {self._update_timeout_s:.0f} s; "
                    "raise update_timeout_s if the model is large."
                ) from error
            _require_version(rank, reported, version)
        self._blob, self._version = blob, version
        if dead:
            self._restart(dead)

    def restart_dead(self) -> list[int]:
        """Replaces engines that do not answer and loads the newest weights into them. Returns their ranks."""
        calls = [handle.check_health.remote() for handle in self._handles]
        dead = []
        for rank, call in enumerate(calls):
            try:
                ray.get(call, timeout=self._update_timeout_s)
            except (RayActorError, EngineDeadError, GetTimeoutError) as error:
                logger.warning("Engine %d is dead: %s", rank, error)
                dead.append(rank)
        if dead:
            self._restart(dead)
        return dead

    def score(self, token_ids: Sequence[int] | np.ndarray, num_context: int) -> np.ndarray:
        """Every engine's logprobs at temperature 1 of the tokens after the context, to verify a weight transfer.

        Returns:
            float32 [engines, len(token_ids) - num_context]
        """
        calls = [handle.score.remote(token_ids, num_context) for handle in self._handles]
        return np.stack(ray.get(calls, timeout=self._update_timeout_s))

    def versions(self) -> list[int]:
        """What each engine says its weights' version is."""
        return list(ray.get([handle.version.remote() for handle in self._handles], timeout=self._update_timeout_s))

    def stop(self) -> None:
        """Ends all engines. Idempotent."""
        for handle in self._handles:
            ray.kill(handle)
        self._handles = []

    def _start(self, rank: int, version: int) -> ActorHandle:
        options: dict[str, Any] = {
            "num_cpus": self._config.num_cpus,
            "num_gpus": self._config.num_gpus,
            "max_concurrency": MAX_CONCURRENCY,
            # A restart by Ray would come back with the checkpoint's weights; `_restart` brings the newest.
            "max_restarts": 0,
        }
        if self._bundles is not None:
            group, first = self._bundles
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=first + rank
            )
        actor = ray.remote(InferenceActor)
        return actor.options(**options).remote(self._config, rank, version)

    def _restart(self, ranks: Sequence[int]) -> None:
        self.num_restarts += len(ranks)
        if self.num_restarts > self._max_restarts:
            raise EngineDeadError(
                f"Engines died {self.num_restarts} times, more than max_restarts={self._max_restarts}; "
                "look into their logs: memory (max_num_seqs, max_model_len, kv_cache_memory_bytes) is the usual cause."
            )
        for rank in ranks:
            ray.kill(self._handles[rank])
            # The checkpoint is older than the newest weights, if there are any: -1 marks it as never to be served.
            self._handles[rank] = self._start(rank, self._version if self._blob is None else -1)
        self._wait_until_ready(ranks)
        if self._blob is not None:
            calls = [self._handles[rank].update_weights.remote(self._blob, self._version) for rank in ranks]
            for rank, reported in zip(ranks, ray.get(calls, timeout=self._update_timeout_s), strict=True):
                _require_version(rank, reported, self._version)

    def _wait_until_ready(self, ranks: Sequence[int]) -> None:
        """Waits for actors to answer, saying every few seconds for what."""
        start = time.monotonic()
        waiting = {self._handles[rank].check_health.remote(): rank for rank in ranks}
        while waiting:
            left = self._startup_timeout_s - (time.monotonic() - start)
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, min(REPORT_EVERY_S, left)))
            elapsed = time.monotonic() - start
            for call in ready:
                rank = waiting.pop(call)
                try:
                    ray.get(call)
                except RayActorError as error:
                    raise EngineDeadError(f"Engine {rank} did not start: {_last_line(error)}") from error
                logger.info("Engine %d is ready after %.0f s.", rank, elapsed)
            if not ready and elapsed >= self._startup_timeout_s:
                raise TimeoutError(f"After {elapsed:.0f} s {self._waiting_text(waiting.values())}")
            if not ready:
                logger.info("After %.0f s %s", elapsed, self._waiting_text(waiting.values()))

    def _waiting_text(self, ranks: Any) -> str:
        config, ranks = self._config, sorted(ranks)
        free = ray.available_resources()
        return (
            f"engines {ranks} ({config.kind}, {config.model}) are not ready: "
            f"{describe_waiting([self._handles[rank] for rank in ranks])}. Each reserves {config.num_cpus:g} CPU and "
            f"{config.num_gpus:g} GPU; free in the cluster are {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} "
            "GPU. If they wait for a place, lower num_engines, num_cpus or num_gpus; if the model is large or the "
            "machine busy, raise startup_timeout_s."
        )


def _last_bundles(needed: Sequence[dict[str, float]]) -> tuple[PlacementGroup, int] | None:
    """A Tune trial's placement group, and the first of the bundles that are the engines' in it; None without one.

    RLlib gives each environment runner a bundle by its index. Engines that took any bundle could take a runner's, which
    then waits for ever.
    """
    group = get_current_placement_group()
    if group is None or group.bundle_specs[-len(needed) :] != list(needed):
        return None  # none, or one that somebody else laid out
    return group, group.bundle_count - len(needed)


def _last_line(error: Exception) -> str:
    """What the actor's constructor raised, from the end of the traceback that Ray quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def _require_version(rank: int, reported: int, version: int) -> None:
    if reported != version:
        raise StaleEngineError(f"Engine {rank} was given weights of version {version} but reports {reported}.")
