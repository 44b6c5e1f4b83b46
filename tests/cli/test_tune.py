"""A sweep with real trials: their settings, their resources, and what W&B gets of them, offline."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from ray import tune

from proxmo_rllib import ProxMO, ProxMOConfig, StopCriteria
from proxmo_rllib.cli.settings import Example
from proxmo_rllib.cli.tune import as_table, first_variant, make_tuner, searched

ENGINES = 2


@pytest.fixture
def sweep(tiny_policy: Path) -> Example:
    config = (
        ProxMOConfig()
        .environment(
            "env_wrappers/ALFWorld-v0", env_config={"rooms": ("bathroom",), "max_receptacles": 3, "max_objects": 2}
        )
        .policy(pretrained=tiny_policy)
        .inference(
            engine="transformers",
            num_engines=ENGINES,
            num_cpus_per_engine=0.5,
            max_model_len=512,
            max_response_tokens=4,
        )
        .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=2)
        .training(num_groups=2, group_size=2, psc_beta=tune.grid_search([0.0, 0.2]))
    )
    tune_config = tune.TuneConfig(metric="env_runners/success_rate", mode="max")
    return Example(Path("sweep.py"), config, StopCriteria(iterations=2), tune_config=tune_config)


def test_a_trial_reserves_its_inference_actors(sweep: Example):
    """Else a trial would wait for ever for engines that nobody reserved a place for."""
    request = ProxMO.default_resource_request(first_variant(sweep.config))
    assert sum(bundle.get("CPU", 0) == 0.5 for bundle in request.bundles) >= ENGINES
    assert request.required_resources["CPU"] == pytest.approx(1 + 0.5 + ENGINES * 0.5)


@pytest.mark.slow
def test_a_grid_over_a_knob_runs_two_trials_whose_metrics_wandb_gets(
    local_ray: None, sweep: Example, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PROXMO_RUNS", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb"))
    (tmp_path / "wandb").mkdir()
    results = make_tuner(sweep, wandb_project="sweep").fit()
    wandb.teardown()  # as the end of the process does: everything is written
    assert not results.errors
    assert searched(sweep.config) == ["config/psc_beta"]
    assert sorted(result.config["psc_beta"] for result in results) == [0.0, 0.2]
    for result in results:
        assert result.metrics["training_iteration"] == 2
        assert result.metrics["policy_version"] == 2
        assert result.checkpoint is not None
        assert result.metrics["learners"]["default_policy"]["advantages"]["modulation/max"] <= 1.05
    assert as_table(results, searched(sweep.config)).row_count == 2
    logged = [history(path) for path in tmp_path.rglob("offline-run-*/*.wandb")]
    assert len(logged) == 2
    for rows in logged:
        assert [row["training_iteration"] for row in rows] == [1, 2]
        assert all("env_runners/success_rate" in row for row in rows)
        assert all("learners/default_policy/advantages/modulation/max" in row for row in rows)


def history(path: Path) -> list[dict[str, Any]]:
    """The metrics in a file of W&B's own format: LevelDB's log of protocol buffers, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    rows: list[dict[str, Any]] = []
    message = b""
    for kind, fragment in fragments(path.read_bytes()):
        message = fragment if kind in (1, 2) else message + fragment  # whole or first; middle or last
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            items = record.history.item
            if items:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def fragments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each fragment: checksum (4 bytes), length (2), kind (1); none crosses a block of 32 KiB."""
    assert data[:4] == b":W&B"
    place, block = 7, 32 * 2**10
    while place + 7 <= len(data):
        left = block - place % block
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if left < 7 or kind == 0:
            place += left
            continue
        yield kind, data[place + 7 : place + 7 + length]
        place += 7 + length
