"""The EnvRunner's side of the inference pool: which engine gets a request, and what happens when one dies.

Requests that are made within two milliseconds travel in one Ray call, and their completions come back over one stream,
each as soon as it is done: a Ray call costs as much CPU as a tiny model's turn, and nobody waits for the slowest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from proxmo_rllib import pulse
from proxmo_rllib.inference.engine import EngineDeadError, StaleEngineError
from proxmo_rllib.types import Completion, SamplingParams

logger = logging.getLogger(__name__)

BATCH_WINDOW_S = 0.002  # requests made within it share a Ray call
# A request leaves the engine that has its prefix cached for the idlest one once its queue is this much longer.
MAX_IMBALANCE = 32


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request on its way, and where its completion goes."""

    prompt_ids: np.ndarray  # int32 [prompt]
    params: SamplingParams
    future: asyncio.Future[Completion]


class PoolClient:
    """Routes requests to the pool's engines. Picklable; used on one event loop at a time."""

    def __init__(
        self, engines: Mapping[int, ActorHandle], version: int, request_timeout_s: float | None = None
    ) -> None:
        """Knows the engines as they are now: take a new client from the pool after a restart.

        Args:
            engines: actors of `InferenceActor` that serve, by rank.
            version: oldest weights that may answer.
            request_timeout_s: seconds after which a request without an answer is an error; None for never.
        """
        self._engines = dict(engines)
        self._ranks = list(engines)
        self._handles = list(engines.values())
        self._version = version
        self._request_timeout_s = request_timeout_s
        self._alive = [True] * len(self._handles)
        self._outstanding = [0] * len(self._handles)
        self._outbox: list[list[PendingRequest]] = [[] for _ in self._handles]
        self._streams: set[asyncio.Task[None]] = set()

    def __reduce__(self) -> tuple[type[PoolClient], tuple[dict[int, ActorHandle], int, float | None]]:
        # Requests under way belong to the process that made them.
        return PoolClient, (self._engines, self._version, self._request_timeout_s)

    @property
    def num_alive(self) -> int:
        """Engines that this client has not found dead."""
        return sum(self._alive)

    def expect(self, version: int) -> None:
        """From now on completions of requests by weights older than `version` are an error."""
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
            ValueError: the engine refused the request, see `Engine.generate`.
            EngineDeadError: no engine is left.
            StaleEngineError: the engine answered under older weights than `expect` said.
            TimeoutError: the engine did not answer in time.
        """
        expected = self._version
        ids = np.asarray(prompt_ids, np.int32)
        while True:
            place = self._route(affinity)
            try:
                completion = await self._request(place, ids, params)
            except (RayActorError, EngineDeadError) as error:
                if self._alive[place]:
                    logger.info("Engine %d died; its requests go to the others: %s", self._ranks[place], error)
                self._alive[place] = False
                continue
            if completion.policy_version < expected:
                raise StaleEngineError(
                    f"Engine {self._ranks[place]} answered under weights of version {completion.policy_version}, but "
                    f"{expected} is the newest: it missed a weight update."
                )
            return completion

    def _route(self, affinity: int) -> int:
        """Place of the engine for the next request."""
        alive = [place for place, is_alive in enumerate(self._alive) if is_alive]
        if not alive:
            raise EngineDeadError(f"All {len(self._handles)} inference engines are dead: pool.heal() replaces them.")
        home = affinity % len(self._handles)
        if not self._alive[home]:
            home = alive[affinity % len(alive)]
        idlest = min(alive, key=lambda place: self._outstanding[place])
        return idlest if self._outstanding[home] - self._outstanding[idlest] > MAX_IMBALANCE else home

    async def _request(self, place: int, ids: np.ndarray, params: SamplingParams) -> Completion:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        self._outbox[place].append(PendingRequest(ids, params, future))
        if len(self._outbox[place]) == 1:
            loop.call_later(BATCH_WINDOW_S, self._send, place)
        self._outstanding[place] += 1
        timer = None
        if self._request_timeout_s is not None:
            timer = loop.call_later(self._request_timeout_s, self._give_up, place, future)
        try:
            with pulse.waiting(f"engine {self._ranks[place]}"):
                return await future
        finally:
            self._outstanding[place] -= 1
            if timer is not None:
                timer.cancel()

    def _give_up(self, place: int, future: asyncio.Future[Completion]) -> None:
        message = f"Engine {self._ranks[place]} did not answer in {self._request_timeout_s:g} s (request_timeout_s)."
        _settle(future, TimeoutError(message))

    def _send(self, place: int) -> None:
        batch, self._outbox[place] = self._outbox[place], []
        stream = asyncio.get_running_loop().create_task(self._receive(place, batch))
        self._streams.add(stream)  # the loop itself keeps only weak references to tasks
        stream.add_done_callback(self._streams.discard)

    async def _receive(self, place: int, batch: list[PendingRequest]) -> None:
        """Sends one batch and hands out its completions as they come."""
        requests = [(pending.prompt_ids, pending.params) for pending in batch]
        try:
            stream = self._handles[place].generate_stream.options(num_returns="streaming").remote(requests)
            async for chunk in stream:
                for index, outcome in await chunk:
                    _settle(batch[index].future, outcome)
        except Exception as error:  # noqa: BLE001 (whatever it is, those who wait must hear of it)
            for pending in batch:
                _settle(pending.future, error)
        for pending in batch:
            _settle(pending.future, EngineDeadError(f"Engine {self._ranks[place]} ended its stream without an answer."))


def _settle(future: asyncio.Future[Completion], outcome: Completion | Exception) -> None:
    """Hands out an outcome, unless there is one or nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
