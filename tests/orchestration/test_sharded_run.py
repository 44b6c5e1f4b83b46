"""A whole run whose learners divide the model: it plays, learns, hands over its weights, is saved and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray
import torch

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.checkpoint_format import CheckpointError, check_whole
from proxmo_rllib.policies.loading import load_causal_lm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROBE = list(range(10, 30))


def rooms_env() -> type[gymnasium.Env[str, str]]:
    """An environment that chance solves now and then; made in a function, since Ray's processes know no tests."""

    class RoomsEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": [], "blocking": False}

        def __init__(self) -> None:
            self.observation_space = self.action_space = AnyText()

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(10)]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.steps = 0
            return f"You are in the room {options['task']}.", {"success": False}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            self.steps += 1
            right = sum(action.encode()) % 3 == 0
            return "Nothing happens.", float(right), self.steps == 3, False, {"success": right}

    return RoomsEnv


@pytest.fixture(scope="module")
def config(local_ray: None, tiny_policy: Path) -> ProxMOConfig:
    env = rooms_env()
    ray.tune.register_env("rooms", lambda settings: env())
    return (
        ProxMOConfig()
        .environment("rooms")
        .policy(pretrained=tiny_policy)
        .inference(engine="transformers", max_model_len=128, max_response_tokens=4)
        .training(num_groups=4, group_size=2, lr=1e-3)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def trained(config: ProxMOConfig, folder: Path) -> tuple[Path, np.ndarray]:
    """A checkpoint of two iterations with two sharded learners, and their scores."""
    algorithm = config.copy(copy_frozen=False).learners(num_learners=2, sharding="fsdp2").build_algo()
    try:
        for iteration in (1, 2):
            result = algorithm.train()
            assert result["learners"]["default_policy"]["policy_version"] == result["policy_version"] == iteration
            assert result["weight_transfer_error"] < 1e-4
        checkpoint = Path(algorithm.save_to_path(folder / "sharded"))
        expected = scores(algorithm)[0]
        np.testing.assert_allclose(algorithm.pool.score(PROBE, 5)[0], expected, atol=1e-4)
        with pytest.raises(ValueError, match="no dictionary holds the state"):
            algorithm.set_state({"learner_group": {}})
    finally:
        algorithm.stop()
    return checkpoint, expected


def scores(algorithm: Any) -> list[np.ndarray]:
    """Of a prompt, by each learner; sharded ones answer together."""
    actors = algorithm.learner_group._workers or ()
    if not actors:
        return [algorithm.learner_group._learner.policy.score(PROBE, 5).numpy()]
    calls = [actor.apply.remote(lambda learner: learner.policy.score(PROBE, 5).numpy()) for actor in actors]
    return list(ray.get(calls))


@pytest.mark.smoke
def test_two_sharded_learners_leave_a_whole_checkpoint(trained: tuple[Path, np.ndarray]):
    """Each its share, and files that transformers loads."""
    checkpoint, expected = trained
    assert {name for name in check_whole(checkpoint).files if name.startswith("learner_group/shards/")} == {
        f"learner_group/shards/{name}" for name in (".metadata", "__0_0.distcp", "__1_0.distcp")
    }
    saved = load_causal_lm(checkpoint / "policy")
    assert len(list((checkpoint / "policy").glob("model-*.safetensors"))) == 2
    with torch.no_grad():
        log_p = saved(torch.tensor([PROBE])).logits[0].log_softmax(-1)
    np.testing.assert_allclose(log_p[range(4, 19), PROBE[5:]].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{"num_learners": 1, "sharding": "fsdp2"}, {"num_learners": 0}], ids=str)
def test_any_number_of_learners_goes_on(
    config: ProxMOConfig, trained: tuple[Path, np.ndarray], folder: Path, settings: dict[str, Any]
):
    checkpoint, expected = trained
    algorithm = config.copy(copy_frozen=False).learners(**settings).build_algo()
    try:
        algorithm.restore_from_path(str(checkpoint))
        assert algorithm.policy_version == 2
        np.testing.assert_allclose(scores(algorithm)[0], expected, atol=1e-5)
        assert algorithm.train()["policy_version"] == 3
        if "sharding" not in settings:
            whole = algorithm.save_to_path(folder / "whole")
            algorithm.config._is_frozen = False
            algorithm.config.sharding = "fsdp2"  # as if its learners were
            with pytest.raises(CheckpointError, match=r"learners that hold whole models.*policy"):
                algorithm.restore_from_path(str(whole))
    finally:
        algorithm.stop()
