"""Engines on two nodes that were started as on a cluster: they serve and take weights, and leave a node that goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.faults import cluster as two_nodes
from benchmarks.faults import processes
from proxmo_rllib.inference.client import PoolClient
from proxmo_rllib.inference.engine import EngineConfig
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.inference.weights import serialise
from proxmo_rllib.types import Completion, SamplingParams
from tests.inference.conftest import tiny_model

pytestmark = pytest.mark.slow

PROMPT = np.arange(30, dtype=np.int32)


@pytest.fixture
def cluster() -> Iterator[two_nodes.Cluster]:
    """A head with two CPUs, and a second node with three."""
    folder = Path(tempfile.mkdtemp(prefix="pxn", dir="/tmp"))  # sockets need a short path
    before = set(processes._started)
    nodes = two_nodes.Cluster(folder, head_cpus=2)
    nodes.environment = {}  # this process's token, which Ray has read
    try:
        nodes.start()
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        for pid in processes._started - before:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def node_of(handle: Any) -> str:
    return ray.get(handle.__ray_call__.remote(lambda actor: ray.get_runtime_context().get_node_id()), timeout=60)


@ray.remote
class Occupant:
    def is_there(self) -> bool:
        return True


def drain(address: str, node: str) -> None:
    """As a cloud does through Ray's autoscaler when it wants a machine back in ten minutes."""
    words = ["--address", address, "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "wanted back", "--deadline-remaining-seconds", "600"]
    subprocess.run([two_nodes._RAY, "drain-node", *words], check=True, timeout=120, env=dict(os.environ))


def test_engines_of_both_nodes_take_weights_and_one_whose_node_goes_ends_what_it_has(
    cluster: two_nodes.Cluster, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path, tied=True)
    config = EngineConfig(model=str(tmp_path), kind="transformers", max_model_len=512, num_cpus=1.0)
    head = ray.get_runtime_context().get_node_id()
    occupants: list[Any] = []
    for node in ray.nodes():  # one CPU is left on each
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        number = node["Resources"]["CPU"] - 1
        occupants.append(Occupant.options(num_cpus=number, scheduling_strategy=there).remote())
    assert ray.get([occupant.is_there.remote() for occupant in occupants], timeout=120) == [True, True]
    pool = InferencePool(config, 2)
    try:
        nodes = [node_of(handle) for handle in pool.handles]
        assert len(set(nodes)) == 2
        pool.update_weights(serialise(model.state_dict()), 1)
        assert pool.versions() == [1, 1]
        first, second = pool.score(PROMPT, 10)
        assert np.array_equal(first, second)

        for occupant in occupants:
            ray.kill(occupant)
        going = next(rank for rank, node in enumerate(nodes) if node != head)
        leaver = pool.handles[going]
        drain(cluster.address, nodes[going])
        completion = asyncio.run(play_while_it_moves(pool, pool.client(), going))
        assert len(completion.token_ids) == 400
        assert [node_of(handle) for handle in pool.handles] == [head, head]
        assert pool.versions() == [1, 1]
        deadline = time.monotonic() + 60
        while is_alive(leaver) and time.monotonic() < deadline:
            assert not pool.heal()
        assert not is_alive(leaver)
        assert pool.num_restarts == 1
    finally:
        pool.stop()


async def play_while_it_moves(pool: InferencePool, client: PoolClient, going: int) -> Completion:
    """A long response of the engine that goes, which is under way when another takes its place."""
    long = asyncio.create_task(client.generate(PROMPT, SamplingParams(1.0, 400), affinity=going))
    await asyncio.sleep(0)
    assert client._engines[going].outstanding == 1
    generation = pool.generation
    while not await asyncio.to_thread(pool.heal):
        assert len(pool.serving) == 2, "it serves until the other one does"
        await asyncio.sleep(0.1)
    assert pool.generation > generation
    client.follow(pool.client())
    short = await client.generate(PROMPT, SamplingParams(1.0, 2), affinity=going)
    assert short.policy_version == 1
    return await long


def is_alive(handle: Any) -> bool:
    from ray._private.state import actors

    return actors(handle._actor_id.hex())["State"] == "ALIVE"
