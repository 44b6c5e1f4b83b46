"""The EnvRunner's side of the inference pool: which engine gets a request, and what happens when one dies."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from proxmo_rllib.inference.engine import EngineDeadError, StaleEngineError
from proxmo_rllib.types import Completion, SamplingParams

logger = logging.getLogger(__name__)

# A request leaves the engine that has its prefix cached for the least busy one once it would queue this much longer.
MAX_IMBALANCE = 32


class PoolClient:
    """Routes requests to the pool's engines. Picklable; used on one event loop at a time."""

    def __init__(self, handles: Sequence[ActorHandle], version: int) -> None:
        """
        Args:
            handles: actors of `InferenceActor`, by rank.
            version: oldest weights that may answer.
        """
        self._handles = list(handles)
        self._outstanding = [0] * len(self._handles)
        self._alive = [True] * len(self._handles)
        self._version = version

    def __reduce__(self) -> tuple[type[PoolClient], tuple[list[ActorHandle], int]]:
        # Requests under way belong to the process that made them.
        return PoolClient, (self._handles, self._version)

    @property
    def num_alive(self) -> int:
        """Engines that have not been found dead by this client."""
        return sum(self._alive)

    def expect(self, version: int) -> None:
        """From now on completions by weights older than `version` are an error."""
        self._version = version

    async def generate(
        self, prompt_ids: Sequence[int] | np.ndarray, params: SamplingParams, affinity: int
    ) -> Completion:
        """Samples one response, on another engine if the first dies over it.

        Args:
            prompt_ids: int [prompt]
            params: how to sample.
            affinity: requests with the same number go to the same engine while it is not overloaded, so that prompts
                which share a prefix (a group, an episode) find it cached.

        Raises:
            EngineDeadError: no engine is left.
            StaleEngineError: the engine answered under older weights than `expect` said.
        """
        expected = self._version
        while True:
            rank = self._route(affinity)
            self._outstanding[rank] += 1
            try:
                completion = await self._handles[rank].generate.remote(prompt_ids, params)
            except (RayActorError, EngineDeadError) as error:
                if self._alive[rank]:
                    logger.warning("Engine %d died; its requests go to the others: %s", rank, error)
                self._alive[rank] = False
                continue
            finally:
                self._outstanding[rank] -= 1
            if completion.policy_version < expected:
                raise StaleEngineError(
                    f"Engine {rank} answered under weights of version {completion.policy_version}, but {expected} is "
                    "the newest: it missed a weight update."
                )
            return completion

    def _route(self, affinity: int) -> int:
        """Rank of the engine for the next request."""
        alive = [rank for rank, is_alive in enumerate(self._alive) if is_alive]
        if not alive:
            raise EngineDeadError(
                f"All {len(self._handles)} inference engines are dead: pool.restart_dead() replaces them."
            )
        home = affinity % len(self._handles)
        if not self._alive[home]:
            home = alive[affinity % len(alive)]
        idlest = min(alive, key=lambda rank: self._outstanding[rank])
        return idlest if self._outstanding[home] - self._outstanding[idlest] > MAX_IMBALANCE else home
