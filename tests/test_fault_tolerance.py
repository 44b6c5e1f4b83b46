"""What a killed process costs: nothing but time. Real Ray; the transformers engine, which starts faster than vLLM."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray

from env_wrappers.core import AnyText
from env_wrappers.panels import Panel
from proxmo_rllib import ProxMO, ProxMOConfig

pytestmark = pytest.mark.slow

GROUPS, SIZE = 4, 2
PROBE = list(range(10, 30))


def treacherous_env() -> type[gymnasium.Env[str, str]]:
    """Kills a process in the middle of an episode, once: when there is a file `kill` with its number, or "me"."""

    class TreacherousEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": [], "blocking": False}

        def __init__(self, folder: str) -> None:
            self.observation_space = self.action_space = AnyText()
            self.folder = folder

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(10)]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.steps = 0
            return f"You are in the room {options['task']}.", {"success": False}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            self.steps += 1
            order, carried_out = os.path.join(self.folder, "kill"), os.path.join(self.folder, "killed")
            if os.path.exists(order):
                os.rename(order, carried_out)
                with open(carried_out) as file:
                    victim = file.read()
                os.kill(os.getpid() if victim == "me" else int(victim), signal.SIGKILL)
            right = sum(action.encode()) % 3 == 0
            return "Nothing happens.", float(right), self.steps == 3, False, {"success": right}

    return TreacherousEnv


@pytest.fixture
def build(local_ray: None, tiny_policy: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Builds an algorithm whose environments read their orders in `tmp_path`."""
    built: list[ProxMO] = []

    def make(num_env_runners: int, num_engines: int = 1) -> ProxMO:
        env = treacherous_env()
        ray.tune.register_env("treacherous", lambda settings: env(**settings))
        panel = Panel("panel", 1, "treacherous", {"folder": str(tmp_path)}, tuple(f"valid-{i}" for i in range(6)))
        config = (
            ProxMOConfig()
            .environment("treacherous", env_config={"folder": str(tmp_path)})
            .policy(pretrained=tiny_policy)
            .inference(engine="transformers", num_engines=num_engines, max_model_len=128, max_response_tokens=4)
            .env_runners(num_env_runners=num_env_runners)
            .training(num_groups=GROUPS, group_size=SIZE, lr=1e-3)
            .evaluation(panel=panel)
            .debugging(run_folder=str(tmp_path / "run"), record_groups=GROUPS)
        )
        built.append(config.build_algo())
        return built[-1]

    yield make
    for algorithm in built:
        algorithm.stop()


def order(folder: Path, victim: object) -> None:
    """Written whole, and then put in its place."""
    (folder / "order").write_text(str(victim))
    (folder / "order").rename(folder / "kill")


def assert_whole(algorithm: Any, result: dict[str, Any], folder: Path) -> None:
    """All groups were learned from, and engines have the learner's newest weights."""
    assert result["num_groups_dropped"] == 0
    assert result["learners"]["default_policy"]["num_sequences"] == GROUPS * SIZE
    lines = [json.loads(line) for line in (folder / "run" / "episodes.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["iteration"] == result["training_iteration"]]
    assert len({line["episode"] for line in mine}) == len(mine) == GROUPS * SIZE
    assert_statistics(result["env_runners"], mine)
    assert result["weight_transfer_error"] < 1e-4
    assert set(algorithm.pool.versions()) == {result["policy_version"]}
    scores = algorithm.learner_group._learner.policy.score(PROBE, 5).numpy()
    for engine in algorithm.pool.score(PROBE, 5):
        np.testing.assert_allclose(engine, scores, atol=1e-4)


def assert_statistics(metrics: dict[str, float], episodes: list[dict[str, Any]]) -> None:
    """They are those of the episodes, whoever has played them and however often."""
    turns = [turn for episode in episodes for turn in episode["turns"]]
    assert metrics["num_episodes"] == len(episodes)
    assert metrics["success_rate"] == pytest.approx(np.mean([e["status"] == "success" for e in episodes]))
    assert metrics["episode_return_mean"] == pytest.approx(np.mean([e["return"] for e in episodes]))
    assert metrics["episode_len_mean"] == pytest.approx(np.mean([len(e["turns"]) for e in episodes]))
    assert metrics["invalid_action_rate"] == pytest.approx(np.mean([not turn["valid"] for turn in turns]))
    logprob = sum(turn["logprob"] for turn in turns) / metrics["num_response_tokens"]
    assert metrics["behaviour_logprob_mean"] == pytest.approx(logprob, rel=1e-5)
    assert metrics["turns_per_second"] / metrics["response_tokens_per_second"] == pytest.approx(
        len(turns) / metrics["num_response_tokens"]
    )


@pytest.mark.parametrize("num_env_runners", [1, 2])
def test_a_killed_environment_runner_costs_no_group(build: Any, tmp_path: Path, num_env_runners: int):
    """Its groups are played again by the others, or by itself when Ray has brought it back."""
    algorithm = build(num_env_runners)
    assert_whole(algorithm, algorithm.train(), tmp_path)
    order(tmp_path, "me")
    assert_whole(algorithm, algorithm.train(), tmp_path)
    assert (tmp_path / "killed").exists()
    assert_whole(algorithm, algorithm.train(), tmp_path)
    # On a busy machine Ray takes longer to bring the runner back than the others take to go on.
    while algorithm.env_runner_group.num_healthy_remote_env_runners() < num_env_runners:
        assert_whole(algorithm, algorithm.train(), tmp_path)


@pytest.mark.parametrize("num_engines", [1, 2])
def test_an_engine_killed_during_an_iteration_is_replaced_within_it(build: Any, tmp_path: Path, num_engines: int):
    algorithm = build(1, num_engines)
    assert_whole(algorithm, algorithm.train(), tmp_path)
    order(tmp_path, ray.get(algorithm.pool.handles[0].check_health.remote()))
    for _ in range(2):
        result = algorithm.train()
        assert_whole(algorithm, result, tmp_path)
        assert result["num_engine_restarts"] == 1
    assert (tmp_path / "killed").exists()


def test_an_engine_killed_between_iterations_comes_back_with_the_newest_weights(build: Any, tmp_path: Path):
    algorithm = build(1)
    assert_whole(algorithm, algorithm.train(), tmp_path)
    ray.kill(algorithm.pool.handles[0])
    result = algorithm.train()
    assert_whole(algorithm, result, tmp_path)
    assert result["num_engine_restarts"] == 1


def test_a_panel_is_played_as_a_whole_whatever_dies(build: Any, tmp_path: Path):
    algorithm = build(2)
    order(tmp_path, "me")
    result = algorithm.evaluate_panel()
    assert (tmp_path / "killed").exists()
    assert (result.overall.episodes, result.num_errors) == (6, 0)
