"""A learner that dies in a run: while others play, and while a checkpoint is saved."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GROUPS, SIZE = 4, 2
PROBE = list(range(10, 30))


def ordered_env() -> type[gymnasium.Env[str, str]]:
    """Kills the process whose number is in the file `kill`, once, in the middle of an episode."""

    class OrderedEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": [], "blocking": False}

        def __init__(self, folder: str) -> None:
            self.observation_space = self.action_space = AnyText()
            self.folder = Path(folder)

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(10)]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.steps = 0
            return f"You are in the room {options['task']}.", {"success": False}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            self.steps += 1
            if (self.folder / "kill").exists():
                victim = int((self.folder / "kill").rename(self.folder / "killed").read_text())
                os.kill(victim, signal.SIGKILL)
            right = sum(action.encode()) % 3 == 0
            return "Nothing happens.", float(right), self.steps == 3, False, {"success": right}

    return OrderedEnv


def each(algorithm: Any, call: Any) -> list[Any]:
    """What a function says of each learner."""
    return [result.get() for result in algorithm.learner_group.foreach_learner(call)]


def assert_whole(algorithm: Any, result: dict[str, Any], iterations: int) -> None:
    """So many iterations, all groups in each; the engine has the learners' weights."""
    assert result["num_groups_dropped"] == 0
    learned = result["learners"]["default_policy"]
    assert learned["num_sequences"] == GROUPS * SIZE
    assert learned["policy_version"] == result["policy_version"] == iterations
    assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] == iterations * GROUPS * SIZE
    assert result["weight_transfer_error"] < 1e-4
    for scores in each(algorithm, lambda learner: learner.policy.score(PROBE, 5).numpy()):
        np.testing.assert_allclose(algorithm.pool.score(PROBE, 5)[0], scores, atol=1e-4)


@pytest.mark.smoke
def test_a_killed_learner_costs_a_run_nothing(local_ray: None, tiny_policy: Path, tmp_path: Path):
    env = ordered_env()
    ray.tune.register_env("ordered", lambda settings: env(**settings))
    algorithm: Any = (
        ProxMOConfig()
        .environment("ordered", env_config={"folder": str(tmp_path)})
        .policy(pretrained=tiny_policy)
        .inference(engine="transformers", max_model_len=128, max_response_tokens=4)
        .training(num_groups=GROUPS, group_size=SIZE, lr=1e-3)
        .learners(num_learners=2)
        .debugging(run_folder=str(tmp_path / "run"))
        .build_algo()
    )
    try:
        assert_whole(algorithm, algorithm.train(), 1)
        (tmp_path / "order").write_text(str(each(algorithm, lambda _: os.getpid())[0]))
        (tmp_path / "order").rename(tmp_path / "kill")
        result = algorithm.train()
        assert (tmp_path / "killed").exists()
        assert_whole(algorithm, result, 2)
        os.kill(each(algorithm, lambda _: os.getpid())[0], signal.SIGKILL)
        algorithm.restore_from_path(algorithm.save_to_path(tmp_path / "checkpoint"))
        assert_whole(algorithm, algorithm.train(), 3)
        assert algorithm._learners.num_restarts == 2
        # The weights outlive the learner that made them, for engines that start anew.
        os.kill(each(algorithm, lambda _: os.getpid())[0], signal.SIGKILL)
        ray.kill(algorithm.pool.handles[0])
        assert_whole(algorithm, algorithm.train(), 4)
    finally:
        algorithm.stop()
