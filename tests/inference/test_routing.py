"""Where a request goes, and what an engine reserves: no Ray needed."""

from __future__ import annotations

from dataclasses import replace

from proxmo_rllib.inference.client import MAX_IMBALANCE, PoolClient
from proxmo_rllib.inference.engine import EngineConfig
from proxmo_rllib.inference.pool import InferencePool


def test_bundles_name_what_each_engine_reserves() -> None:
    config = EngineConfig(model="model", num_cpus=0.5)
    assert InferencePool.resource_bundles(config, 2) == [{"CPU": 0.5}, {"CPU": 0.5}]
    assert InferencePool.resource_bundles(replace(config, num_gpus=2), 1) == [{"CPU": 0.5, "GPU": 2}]


def test_requests_with_one_affinity_stay_together_until_their_engine_is_overloaded() -> None:
    client = PoolClient({0: object(), 1: object()}, 0)  # type: ignore[dict-item]
    assert {client._route(7) for _ in range(5)} == {1}
    client._outstanding = [0, MAX_IMBALANCE]
    assert client._route(7) == 1
    client._outstanding = [0, MAX_IMBALANCE + 1]
    assert client._route(7) == 0
    client._alive = [True, False]
    assert client._route(7) == 0
