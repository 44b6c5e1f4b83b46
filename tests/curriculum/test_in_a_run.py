"""Runs with a curriculum, in real Ray: groups are replaced, all that was played is counted, resuming is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from ray.tune import register_env

from env_wrappers.core import AnyText
from env_wrappers.panels import Panel
from proxmo_rllib import ProxMO, ProxMOConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GROUPS, SIZE, TURNS = 4, 3, 4
CURRICULUM: dict[str, Any] = {
    "task_order": {"name": "success_rate", "min_episodes": 3, "outside": 0.3},
    "horizon": {"name": "by_success", "start": 2, "step": 1, "groups": 6, "success": 0.3},
    "dynamic_sampling": {"name": "outcome", "at_most": 4},
}


def graded_env() -> type[gymnasium.Env[str, str]]:
    """Of three tasks one is always solved, one never, and one by chance, which even a random model has.

    Made in a function, so that Ray's processes, which know no tests, get the class itself.
    """

    class GradedEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": [], "blocking": False}

        def __init__(self) -> None:
            self.observation_space = self.action_space = AnyText()

        def tasks(self, split: str) -> list[str]:
            kinds = ["never"] if split == "impossible" else ["always", "never", "chance"]
            return [f"{kind}-{index}" for index in range(8) for kind in kinds]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.kind, number = options["task"].split("-")
            return "Say something. " * (1 + int(number)), {"success": False, "task": options["task"]}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            right = self.kind == "always" or (self.kind == "chance" and sum(action.encode()) % 4 == 0)
            return f"You said: {action}", float(right), right, False, {"success": right}

    return GradedEnv


@pytest.fixture
def build(local_ray: None, tiny_policy: Path) -> Callable[..., Any]:
    env = graded_env()
    register_env("graded", lambda settings: env())  # for the panel, which needs a name
    panel = Panel("graded", 1, "graded", {}, ("never-0", "never-1"))

    def make(folder: Path, *, split: str = "train", **curriculum: Any) -> Any:
        return (
            ProxMOConfig()
            .environment(lambda settings: env())
            .policy(pretrained=tiny_policy)
            .inference(engine="transformers", max_model_len=256, max_response_tokens=6, max_num_seqs=16)
            .env_runners(num_env_runners=2, max_turns=TURNS, max_concurrent_episodes=8, split=split)
            .training(num_groups=GROUPS, group_size=SIZE, lr=1e-3, weight_decay=0.1)
            .curriculum(**curriculum)
            .evaluation(panel=panel, evaluation_interval=1)
            .debugging(run_folder=str(folder))
            .build_algo()
        )

    return make


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    learner = algorithm.learner_group._learner
    return {name: parameter.detach().clone() for name, parameter in learner.policy.lm.named_parameters()}


def test_groups_are_replaced_and_a_resumed_run_is_equal(build: Any, tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", **CURRICULUM)
    results = [whole.train() for _ in range(4)]
    expected, state = weights(whole), whole._sampler.get_state()
    whole.stop()

    for result in results:
        played, learned, curriculum = result["env_runners"], result["learners"]["default_policy"], result["curriculum"]
        kept = curriculum["num_groups_played"] - curriculum["num_groups_without_contrast"]
        assert kept == GROUPS - curriculum["num_groups_missing"]
        # What was left out was played, and counts as that; what is learned from is what was kept.
        assert played["num_episodes"] == SIZE * curriculum["num_groups_played"]
        assert played["success_rate"] == pytest.approx(played["num_successes"] / played["num_episodes"])
        assert learned["advantages"]["groups"] == kept
        assert learned["advantages"]["groups_without_contrast"] == 0
        assert learned["num_sequences"] == SIZE * kept
        assert result["num_groups_dropped"] == 0
        assert result["evaluation"]["episode_len_mean"] == TURNS, "the panel has the whole horizon"
        assert result["evaluation"]["num_episodes"] == 2
    assert max(result["curriculum"]["num_groups_played"] for result in results) > GROUPS
    assert [result["curriculum"]["horizon"] for result in results][-1] > 2
    assert results[-1]["curriculum"]["num_tasks_too_easy"] > 0
    assert results[-1]["curriculum"]["num_tasks_too_hard"] > 0

    first = build(tmp_path / "half", **CURRICULUM)
    again = [first.train() for _ in range(2)]
    checkpoint = first.save_to_path(str(tmp_path / "checkpoint"))
    at_the_half = first._sampler.get_state()
    first.stop()
    assert json.loads((Path(checkpoint) / "task_sampler.json").read_text()) == at_the_half
    second = ProxMO.from_checkpoint(checkpoint)
    assert second._sampler.get_state() == at_the_half
    again += [second.train() for _ in range(2)]
    resumed, state_again = weights(second), second._sampler.get_state()
    second.stop()

    assert [result["curriculum"] for result in again] == [result["curriculum"] for result in results]
    for name in ("behaviour_logprob_mean", "success_rate", "num_response_tokens", "num_episodes_lifetime"):
        assert [r["env_runners"][name] for r in again] == [r["env_runners"][name] for r in results], name
    assert all(torch.equal(resumed[name], weight) for name, weight in expected.items())
    assert state_again == state


def test_nothing_to_learn_from_moves_no_weight_and_ends_the_run_in_words(build: Any, tmp_path: Path) -> None:
    algorithm = build(tmp_path, split="impossible", dynamic_sampling={"name": "advantage", "at_most": 1})
    before = weights(algorithm)
    results = [algorithm.train() for _ in range(5)]
    after = weights(algorithm)
    with pytest.raises(RuntimeError, match=r"dynamic_sampling: the last 20 groups .* 0 of 60 episodes solved"):
        algorithm.train()
    algorithm.stop()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [result["policy_version"] for result in results] == [0] * 5
    assert all("total_loss" not in result.get("learners", {}).get("default_policy", {}) for result in results)
    assert [result["curriculum"]["num_groups_missing"] for result in results] == [GROUPS] * 5
    assert results[-1]["env_runners"]["num_episodes_lifetime"] == 5 * GROUPS * SIZE
