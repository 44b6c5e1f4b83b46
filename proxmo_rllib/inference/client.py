"""The EnvRunner's side of the inference pool: which engine gets a request, and what happens when one dies.

    affinity ─► home engine, which has the prefix cached ─► MAX_IMBALANCE fuller than the idlest? ─► the idlest

An engine is as full as this client's own requests to it, and others' as the engine told last. The client of a runner
stays for the whole run: weights and engines change under it (`follow`), and what is under way still counts.

Requests that are made within two milliseconds travel in one Ray call, and their completions come back over one stream,
each as soon as it is done: a Ray call costs as much CPU as a tiny model's turn, and nobody waits for the slowest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ray.actor import ActorHandle

from proxmo_rllib import pulse
from proxmo_rllib.inference.engine import EngineDeadError, StaleEngineError
from proxmo_rllib.machine.actors import ACTOR_DEATHS
from proxmo_rllib.types import Completion, SamplingParams

logger = logging.getLogger(__name__)

BATCH_WINDOW_S = 0.002  # requests made within it share a Ray call
# A request leaves the engine that has its prefix cached for the idlest one once its queue is this much longer.
MAX_IMBALANCE = 32
# What an engine told of others' requests is forgotten after so long: it tells more only to those who ask it something.
LOAD_KNOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request on its way, and where its completion goes."""

    prompt_ids: np.ndarray  # int32 [prompt]
    params: SamplingParams
    future: asyncio.Future[Completion]


@dataclass(slots=True, eq=False)
class _Engine:
    """An engine as one client sees it.

    Attributes:
        rank: its number in the pool.
        handle: of its actor.
        alive: whether this client has not found it dead.
        outstanding: requests of this client's that have no answer.
        others: requests of other clients', as it told last.
        told: time.monotonic() when it did.
        loop: on which the requests of `outbox` are about to be sent; None while there are none.
        outbox: requests that are not sent yet.
    """

    rank: int
    handle: ActorHandle
    alive: bool = True
    outstanding: int = 0
    others: int = 0
    told: float = 0.0
    loop: asyncio.AbstractEventLoop | None = None
    outbox: list[PendingRequest] = field(default_factory=list)

    @property
    def load(self) -> int:
        """Requests that it has, as far as is known."""
        known = self.others and time.monotonic() - self.told < LOAD_KNOWN_S
        return self.outstanding + (self.others if known else 0)

    def tell(self, held: int) -> None:
        """Takes down how many requests it has in all."""
        self.others, self.told = max(0, held - self.outstanding), time.monotonic()


class PoolClient:
    """Routes requests to the pool's engines. Picklable; used on one event loop at a time."""

    def __init__(
        self,
        engines: Mapping[int, ActorHandle],
        version: int,
        request_timeout_s: float | None = None,
        num_engines: int | None = None,
    ) -> None:
        """Knows the engines as they are now; `follow` tells it of others.

        Args:
            engines: actors of `InferenceActor` that serve, by rank.
            version: oldest weights that may answer.
            request_timeout_s: seconds after which a request without an answer is an error; None for never.
            num_engines: of the pool, those that do not serve just now too; None if all do. Requests have the same home
                whoever is missing.
        """
        self._engines = {rank: _Engine(rank, handle) for rank, handle in engines.items()}
        self._version = version
        self._request_timeout_s = request_timeout_s
        self._num_engines = num_engines or len(engines)
        self._streams: set[asyncio.Task[None]] = set()

    def __reduce__(self) -> tuple[type[PoolClient], tuple[dict[int, ActorHandle], int, float | None, int]]:
        # Requests under way belong to the process that made them.
        handles = {rank: engine.handle for rank, engine in self._engines.items()}
        return PoolClient, (handles, self._version, self._request_timeout_s, self._num_engines)

    @property
    def num_alive(self) -> int:
        """Engines that this client has not found dead."""
        return sum(engine.alive for engine in self._engines.values())

    def expect(self, version: int) -> None:
        """From now on completions of requests by weights older than `version` are an error."""
        self._version = version

    def follow(self, newer: PoolClient) -> None:
        """Goes on with the engines and the version of a client that the pool has just given.

        Requests under way go on, and those to engines that serve on still count. May be called while another thread's
        event loop uses this client.
        """
        engines = {}
        for rank, engine in newer._engines.items():
            mine = self._engines.get(rank)
            if mine is None or mine.handle != engine.handle:
                mine = _Engine(rank, engine.handle)  # not the newer one's own, which may follow somebody else
            mine.alive = True  # the pool has just looked
            engines[rank] = mine
        self._version = newer._version
        self._request_timeout_s = newer._request_timeout_s
        self._num_engines = newer._num_engines
        self._engines = engines  # as a whole: a request of the other thread sees those of before, or these

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
            engine = self._route(affinity)
            try:
                completion = await self._request(engine, ids, params)
            except (*ACTOR_DEATHS, EngineDeadError) as error:
                if engine.alive:
                    logger.info("Engine %d died; its requests go to the others: %s", engine.rank, error)
                engine.alive = False
                continue
            if completion.policy_version < expected:
                raise StaleEngineError(
                    f"Engine {engine.rank} answered under weights of version {completion.policy_version}, but "
                    f"{expected} is the newest: it missed a weight update."
                )
            return completion

    def _route(self, affinity: int) -> _Engine:
        """The engine for the next request."""
        engines = self._engines
        alive = [engine for engine in engines.values() if engine.alive]
        if not alive:
            raise EngineDeadError(f"All {self._num_engines} inference engines are dead: pool.heal() replaces them.")
        home = engines.get(affinity % self._num_engines)
        if home is None or not home.alive:
            home = alive[affinity % len(alive)]
        idlest = min(alive, key=lambda engine: engine.load)
        return idlest if home.load - idlest.load > MAX_IMBALANCE else home

    async def _request(self, engine: _Engine, ids: np.ndarray, params: SamplingParams) -> Completion:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        if engine.loop is not loop:  # what another one left behind when it ended is nobody's
            engine.loop, engine.outbox = loop, []
            loop.call_later(BATCH_WINDOW_S, self._send, engine)
        engine.outbox.append(PendingRequest(ids, params, future))
        engine.outstanding += 1
        timer = None
        if self._request_timeout_s is not None:
            timer = loop.call_later(self._request_timeout_s, self._give_up, engine, future)
        try:
            with pulse.waiting(f"engine {engine.rank}"):
                return await future
        finally:
            engine.outstanding -= 1
            if timer is not None:
                timer.cancel()

    def _give_up(self, engine: _Engine, future: asyncio.Future[Completion]) -> None:
        message = f"Engine {engine.rank} did not answer in {self._request_timeout_s:g} s (request_timeout_s)."
        _settle(future, TimeoutError(message))

    def _send(self, engine: _Engine) -> None:
        batch = [pending for pending in engine.outbox if not pending.future.done()]  # else it was cancelled
        engine.loop, engine.outbox = None, []
        if not batch:
            return
        stream = asyncio.get_running_loop().create_task(self._receive(engine, batch))
        self._streams.add(stream)  # the loop itself keeps only weak references to tasks
        stream.add_done_callback(self._streams.discard)

    async def _receive(self, engine: _Engine, batch: list[PendingRequest]) -> None:
        """Sends one batch and hands out its completions as they come."""
        requests = [(pending.prompt_ids, pending.params) for pending in batch]
        try:
            stream = engine.handle.generate_stream.options(num_returns="streaming").remote(requests)
            async for chunk in stream:
                held, outcomes = await chunk
                engine.tell(held + len(outcomes))  # those who wait for the outcomes still count as outstanding
                for index, outcome in outcomes:
                    _settle(batch[index].future, outcome)
        except Exception as error:  # noqa: BLE001 (whatever it is, those who wait must hear of it)
            for pending in batch:
                _settle(pending.future, error)
        for pending in batch:
            _settle(pending.future, EngineDeadError(f"Engine {engine.rank} ended its stream without an answer."))


def _settle(future: asyncio.Future[Completion], outcome: Completion | Exception) -> None:
    """Hands out an outcome, unless there is one or nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
