"""Where a request goes, and what an engine reserves: no Ray needed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from proxmo_rllib.inference.client import LOAD_KNOWN_S, MAX_IMBALANCE, PoolClient
from proxmo_rllib.inference.engine import EngineConfig, EngineDeadError
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.types import Completion, SamplingParams

PROMPT = np.arange(3, dtype=np.int32)
PARAMS = SamplingParams(1.0, 1)


class Engine:
    """In the place of an engine's actor: answers when the test says so."""

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self.dead = False
        self.held: list[asyncio.Future[None]] = []
        self.generate_stream = self

    def options(self, **_: Any) -> Engine:
        return self

    async def remote(self, requests: list[Any]) -> AsyncIterator[Awaitable[Any]]:
        if self.dead:
            raise ActorDiedError
        waiting = {asyncio.get_running_loop().create_future(): index for index in range(len(requests))}
        self.held += waiting
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.dead:
                raise ActorDiedError
            yield self._chunk([waiting.pop(future) for future in done])

    async def _chunk(self, indices: list[int]) -> tuple[int, list[tuple[int, Completion]]]:
        completion = Completion(np.zeros(1, np.int32), np.zeros(1, np.float32), "length", self.version)
        return len(self.held), [(index, completion) for index in indices]

    def answer(self, count: int = 10**9) -> None:
        """The oldest of its requests."""
        for future in self.held[:count]:
            future.set_result(None)
        del self.held[:count]

    def die(self) -> None:
        self.dead = True
        self.answer()


def client_of(engines: dict[int, Engine], version: int = 0, num_engines: int | None = None) -> PoolClient:
    return PoolClient(engines, version, num_engines=num_engines)  # type: ignore[arg-type]


def ask(client: PoolClient, affinity: int, count: int = 1) -> list[asyncio.Task[Completion]]:
    return [asyncio.create_task(client.generate(PROMPT, PARAMS, affinity)) for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (of a client's books, which tell nobody)
            await asyncio.sleep(0.001)


async def until_sent(*clients: PoolClient) -> None:
    """All requests that were made are with their engines."""
    await asyncio.sleep(0)
    await until(lambda: not any(engine.outbox for client in clients for engine in client._engines.values()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_bundles_name_what_each_engine_reserves() -> None:
    config = EngineConfig(model="model", num_cpus=0.5)
    assert InferencePool.resource_bundles(config, 2) == [{"CPU": 0.5}, {"CPU": 0.5}]
    assert InferencePool.resource_bundles(replace(config, num_gpus=2), 1) == [{"CPU": 0.5, "GPU": 2}]


def test_requests_with_one_affinity_stay_together_until_their_engine_is_overloaded() -> None:
    async def scenario() -> None:
        engines = {0: Engine(), 1: Engine()}
        client = client_of(engines)
        asked = ask(client, 7, MAX_IMBALANCE + 1)
        await until_sent(client)
        assert (len(engines[0].held), len(engines[1].held)) == (0, MAX_IMBALANCE + 1)
        asked += ask(client, 7, 3)
        await until_sent(client)
        assert (len(engines[0].held), len(engines[1].held)) == (2, MAX_IMBALANCE + 2), "the two stay that far apart"
        engines[1].answer()
        await until(lambda: client._engines[1].outstanding == 0)
        asked += ask(client, 7)
        await until_sent(client)
        assert len(engines[1].held) == 1
        for engine in engines.values():
            engine.answer()
        await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_what_is_under_way_still_counts_after_a_weight_update() -> None:
    async def scenario() -> None:
        engines = {0: Engine(), 1: Engine()}
        client = client_of(engines)
        asked = ask(client, 0, MAX_IMBALANCE + 1)
        await until_sent(client)
        client.follow(client_of(engines, version=1))
        for engine in engines.values():
            engine.version = 1
        asked += ask(client, 0)
        await until_sent(client)
        assert len(engines[1].held) == 1
        for engine in engines.values():
            engine.answer()
        await asyncio.gather(*asked)
        assert client._version == 1
        assert [engine.outstanding for engine in client._engines.values()] == [0, 0]

    asyncio.run(scenario())


def test_other_runners_requests_count_as_the_engine_told_and_are_forgotten_when_it_tells_nothing() -> None:
    async def scenario() -> None:
        engines = {0: Engine(), 1: Engine()}
        busy, client = client_of({0: engines[0]}), client_of(engines)
        asked = ask(busy, 0, 2 * MAX_IMBALANCE)
        await until_sent(busy)
        (first,) = ask(client, 0)
        await until_sent(client)
        engines[0].held[-1].set_result(None)
        del engines[0].held[-1]
        await first
        asked += ask(client, 0)
        await until_sent(client)
        assert len(engines[1].held) == 1, "its home is full of another runner's requests"
        client._engines[0].told = time.monotonic() - LOAD_KNOWN_S
        asked += ask(client, 0)
        await until_sent(client)
        assert len(engines[0].held) == 2 * MAX_IMBALANCE + 1, "it may be idle by now: it is asked again"
        for engine in engines.values():
            engine.answer()
        await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_while_an_engine_is_missing_the_others_keep_their_prefixes() -> None:
    engines = {rank: Engine() for rank in range(4)}
    homes = {affinity: client_of(engines)._route(affinity).rank for affinity in range(40)}
    assert Counter(homes.values()) == dict.fromkeys(range(4), 10)
    client = client_of(engines)
    del engines[2]
    client.follow(client_of(engines, num_engines=4))
    now = {affinity: client._route(affinity).rank for affinity in homes}
    assert {a: rank for a, rank in now.items() if homes[a] != 2} == {a: rank for a, rank in homes.items() if rank != 2}
    moved = Counter(rank for affinity, rank in now.items() if homes[affinity] == 2)
    assert moved.keys() <= {0, 1, 3}
    assert len(moved) > 1, "one engine takes all that the missing one had"


def test_an_event_loop_that_ended_with_a_request_unsent_blocks_no_other() -> None:
    engine = Engine()
    client = client_of({0: engine})

    async def give_up() -> None:
        task = asyncio.create_task(client.generate(PROMPT, PARAMS, 0))
        await asyncio.sleep(0)
        task.cancel()

    async def scenario() -> None:
        asked = ask(client, 0)
        await until(lambda: len(engine.held) == 1)
        engine.answer()
        await asyncio.gather(*asked)

    asyncio.run(give_up())
    assert client._engines[0].outstanding == 0
    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_every_request_ends_and_the_books_are_right(seed: int) -> None:
    """Requests, answers, updates, deaths and replacements in any order."""
    rng = random.Random(seed)

    async def scenario() -> None:
        version = 0
        engines = {rank: Engine() for rank in range(3)}
        client = client_of(engines)
        asked: list[asyncio.Task[Completion]] = []

        def replace_the_dead() -> None:
            for rank, engine in engines.items():
                if engine.dead:
                    engines[rank] = Engine(version)

        for _ in range(200):
            match rng.choice(["ask", "ask", "ask", "answer", "answer", "update", "die", "heal"]):
                case "ask":
                    asked += ask(client, rng.randrange(50), rng.randrange(1, 20))
                case "answer":
                    rng.choice(list(engines.values())).answer(rng.randrange(1, 30))
                case "update":
                    version += 1
                    for engine in engines.values():
                        engine.version = version
                    client.follow(client_of(engines, version))
                case "die" if sum(engine.dead for engine in engines.values()) < 2:
                    rng.choice(list(engines.values())).die()
                case "heal":
                    replace_the_dead()
                    client.follow(client_of(engines, version))
            await until_sent(client)
            held = sum(len(engine.held) for engine in engines.values())
            for engine in client._engines.values():
                assert engine.outstanding >= 0
                assert engine.load >= engine.outstanding
            assert held <= sum(engine.outstanding for engine in client._engines.values())
        replace_the_dead()
        client.follow(client_of(engines, version))

        def all_have_ended() -> bool:
            for engine in engines.values():
                engine.answer()
            return all(task.done() for task in asked)

        await until(all_have_ended)
        assert [task for task in asked if isinstance(task.exception(), Exception)] == []
        assert all(engine.outstanding == 0 for engine in client._engines.values())

    asyncio.run(scenario())


def test_when_all_engines_are_dead_it_says_so_until_the_pool_has_others() -> None:
    async def scenario() -> None:
        engine = Engine()
        client = client_of({0: engine})
        (task,) = ask(client, 0)
        await until_sent(client)
        engine.die()
        with pytest.raises(EngineDeadError, match="All 1 inference engines are dead"):
            await task
        other = Engine()
        client.follow(client_of({0: other}))
        (task,) = ask(client, 0)
        await until_sent(client)
        other.answer()
        await task

    asyncio.run(scenario())
