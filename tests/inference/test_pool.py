"""The pool under real Ray: routing, death, restart with the newest weights, and no stale answer unnoticed."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from proxmo_rllib.inference.client import MAX_IMBALANCE, PoolClient
from proxmo_rllib.inference.engine import EngineConfig, EngineDeadError, StaleEngineError
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.inference.weights import WeightsMismatchError, serialise
from proxmo_rllib.types import Completion, SamplingParams

pytestmark = pytest.mark.slow

PROMPT = np.arange(30, dtype=np.int32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Not pytest's folder: Ray's sockets lie in it, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, _temp_dir=folder, log_to_driver=False
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path, make_model: Any) -> Any:
    return make_model(folder, tied=True)


@pytest.fixture(scope="module")
def config(folder: Path, model: Any) -> EngineConfig:
    return EngineConfig(model=str(folder), kind="transformers", max_model_len=256, num_cpus=0.5)


@pytest.fixture(scope="module")
def pool(cluster: None, config: EngineConfig) -> Iterator[InferencePool]:
    pool = InferencePool(config, 2)
    yield pool
    pool.stop()


def changed(model: Any, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }


def expected_scores(model: Any, state: dict[str, torch.Tensor], ids: np.ndarray, num_context: int) -> np.ndarray:
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        state = {**state, "lm_head.weight": state["model.embed_tokens.weight"]}
        logits = torch.func.functional_call(model, state, (tokens,)).logits
    return logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[num_context - 1 :, 0].numpy()


def generate(client: PoolClient, affinities: list[int], max_tokens: int = 4) -> list[Completion]:
    async def burst() -> list[Completion]:
        calls = (client.generate(PROMPT, SamplingParams(1.0, max_tokens), affinity) for affinity in affinities)
        return await asyncio.wait_for(asyncio.gather(*calls), 60)

    return asyncio.run(burst())


def test_an_update_reaches_every_engine_and_a_killed_one_comes_back_with_it(pool: InferencePool, model: Any) -> None:
    state = changed(model, 1)
    expected = expected_scores(model, state, PROMPT, 10)
    pool.update_weights(serialise(state), pool.version + 1)
    assert pool.versions() == [pool.version] * 2
    assert np.abs(pool.score(PROMPT, 10) - expected).max() < 1e-4

    client = pool.client()
    ray.kill(pool.handles[1])
    completions = generate(client, list(range(8)))
    assert len(completions) == 8, "the engine that is left answers for both"
    assert client.num_alive == 1
    assert pool.heal(wait=True)
    assert pool.versions() == [pool.version] * 2
    assert np.abs(pool.score(PROMPT, 10) - expected).max() < 1e-4
    assert pool.client().num_alive == 2


def test_an_engine_that_died_before_an_update_is_replaced_and_updated(pool: InferencePool, model: Any) -> None:
    ray.kill(pool.handles[0])
    state = changed(model, 2)
    pool.update_weights(ray.put(serialise(state)), pool.version + 1)
    assert pool.serving == [1], "the other one serves meanwhile"
    pool.heal(wait=True)
    assert pool.versions() == [pool.version] * 2
    assert np.abs(pool.score(PROMPT, 10) - expected_scores(model, state, PROMPT, 10)).max() < 1e-4


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve_on(pool: InferencePool) -> None:
    version = pool.version
    with pytest.raises(WeightsMismatchError, match="is missing"):
        pool.update_weights(serialise({"x": torch.zeros(3)}), version + 1)
    assert pool.version == version
    assert generate(pool.client(), [0, 1])[0].policy_version == version


def test_an_engine_that_missed_an_update_is_found_out(pool: InferencePool, model: Any) -> None:
    client = pool.client()
    assert generate(client, [0])[0].policy_version == pool.version
    client.expect(pool.version + 1)
    with pytest.raises(StaleEngineError, match=f"version {pool.version}, but {pool.version + 1}"):
        generate(client, [0])


def test_two_engines_do_not_sample_the_same(pool: InferencePool) -> None:
    first, second = generate(pool.client(), [0, 1], max_tokens=20)
    assert first.token_ids.tolist() != second.token_ids.tolist()


def test_a_request_that_is_refused_does_not_disturb_those_sent_with_it(pool: InferencePool) -> None:
    client = pool.client()

    async def mixed() -> list[Any]:
        prompts = [PROMPT, PROMPT + 10_000, PROMPT]
        calls = (client.generate(prompt, SamplingParams(1.0, 3), 0) for prompt in prompts)
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    good, bad, also_good = asyncio.run(mixed())
    assert isinstance(bad, ValueError)
    assert "outside the vocabulary" in str(bad)
    assert len(good.token_ids) == len(also_good.token_ids) == 3


def test_a_short_response_does_not_wait_for_a_long_one_sent_with_it(pool: InferencePool) -> None:
    client = pool.client()

    async def race() -> list[str]:
        order: list[str] = []

        async def one(name: str, max_tokens: int) -> None:
            await client.generate(PROMPT, SamplingParams(1.0, max_tokens), 0)
            order.append(name)

        await asyncio.wait_for(asyncio.gather(one("long", 200), one("short", 1)), 60)
        return order

    assert asyncio.run(race()) == ["short", "long"]


def test_a_client_travels_to_another_process_and_works_there(pool: InferencePool) -> None:
    @ray.remote(num_cpus=0)
    def play(client: PoolClient) -> list[int]:
        return [len(completion.token_ids) for completion in generate(client, [0, 1, 2])]

    assert ray.get(play.remote(pool.client()), timeout=60) == [4, 4, 4]


def test_an_engine_tells_each_client_of_the_others_requests(pool: InferencePool) -> None:
    busy, client = pool.client(), pool.client()

    async def scenario() -> tuple[int, int, int]:
        params = SamplingParams(1.0, 40)
        asked = [asyncio.create_task(busy.generate(PROMPT, params, 0)) for _ in range(MAX_IMBALANCE // 2)]
        await asyncio.sleep(0)
        first = client._route(0).rank
        await client.generate(PROMPT, SamplingParams(1.0, 1), 0)
        told = client._engines[0].others
        for engine in client._engines.values():
            engine.tell(engine.others + (MAX_IMBALANCE if engine.rank == 0 else 0))
        second = client._route(0).rank
        await asyncio.wait_for(asyncio.gather(*asked), 120)
        return first, told, second

    assert asyncio.run(scenario()) == (0, MAX_IMBALANCE // 2, 1)


def test_the_end_of_a_pool_ends_the_requests_that_are_under_way(cluster: None, config: EngineConfig) -> None:
    pool = InferencePool(config, 1)
    client = pool.client()

    async def scenario() -> None:
        long = asyncio.create_task(client.generate(PROMPT, SamplingParams(1.0, 220), 0))
        await client.generate(PROMPT, SamplingParams(1.0, 1), 0)
        assert not long.done()
        await asyncio.to_thread(pool.stop)
        with pytest.raises(EngineDeadError, match="inference engines are dead"):
            await asyncio.wait_for(long, 60)

    asyncio.run(scenario())


def test_when_no_engine_is_left_it_says_so(cluster: None, config: EngineConfig) -> None:
    pool = InferencePool(config, 1, max_restarts=0)
    client = pool.client()
    ray.kill(pool.handles[0])
    with pytest.raises(EngineDeadError, match="All 1 inference engines are dead"):
        generate(client, [0, 1])
    with pytest.raises(EngineDeadError, match="max_restarts=0"):
        pool.heal()
    pool.stop()
    pool.stop()


def test_a_start_that_cannot_succeed_ends_with_what_it_waits_for(cluster: None, config: EngineConfig) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"engines \[0\].*1 wait for a place.*reserves 64 CPU.*free in the cluster"):
        InferencePool(replace(config, num_cpus=64), 1, startup_timeout_s=2)
    assert time.monotonic() - start < 20


def test_a_model_that_is_not_there_is_named_at_start(cluster: None, config: EngineConfig, tmp_path: Path) -> None:
    with pytest.raises(EngineDeadError, match=r"Engine 0 did not start: .*none does not exist"):
        InferencePool(replace(config, model=str(tmp_path / "none")), 1)


def test_a_vllm_engine_whose_core_process_is_killed_is_replaced(
    cluster: None, config: EngineConfig, model: Any
) -> None:
    pool = InferencePool(replace(config, kind="vllm"), 1)
    state = changed(model, 3)
    pool.update_weights(serialise(state), 1)
    expected = expected_scores(model, state, PROMPT, 10)
    assert np.abs(pool.score(PROMPT, 10) - expected).max() < 1e-4

    def kill_core(actor: Any) -> list[str]:
        """Names of the actor's child processes, now dead; by handle, since a process's title may lag or be cut."""
        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        gone = multiprocessing.connection.wait([child.sentinel for child in children], timeout=60)
        assert len(gone) == len(children)
        return [child.name for child in children]

    assert ray.get(pool.handles[0].__ray_call__.remote(kill_core), timeout=90) == ["EngineCore"]
    with pytest.raises(EngineDeadError):
        generate(pool.client(), [0])
    assert pool.heal()
    assert np.abs(pool.score(PROMPT, 10) - expected).max() < 1e-4
    assert generate(pool.client(), [0])[0].policy_version == 1
    pool.stop()
