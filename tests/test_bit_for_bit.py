"""A run that was stopped and resumed is the run that was not, to the last bit, with the transformers engine too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMO, ProxMOConfig

pytestmark = pytest.mark.slow


def talking_env() -> type[gymnasium.Env[str, str]]:
    """Says what was said, so that prompts have many lengths, and is solved by words of many vowels."""

    class TalkingEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": []}

        def __init__(self) -> None:
            self.observation_space = self.action_space = AnyText()

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(20)]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.said = ""
            return "Say something. " * (1 + int(options["task"].split("-")[1])), {"success": False}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            self.said += action
            right = sum(letter in "aeiou" for letter in self.said) > 9
            return f"You said: {self.said}", float(right), right, False, {"success": right}

    return TalkingEnv


@pytest.fixture
def build(local_ray: None, tiny_policy: Path) -> Callable[..., Any]:
    env = talking_env()

    def make(folder: Path, num_env_runners: int) -> Any:
        return (
            ProxMOConfig()
            .environment(lambda settings: env())
            .policy(pretrained=tiny_policy)
            .inference(engine="transformers", max_model_len=256, max_response_tokens=8, max_num_seqs=8)
            .env_runners(num_env_runners=num_env_runners, max_turns=3, max_concurrent_episodes=8)
            .training(num_groups=4, group_size=3, lr=1e-2)
            .debugging(run_folder=str(folder))
            .build_algo()
        )

    return make


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    learner = algorithm.learner_group._learner
    return {name: parameter.detach().clone() for name, parameter in learner.policy.lm.named_parameters()}


@pytest.mark.parametrize("num_env_runners", [1, 2])
def test_two_and_two_iterations_are_four(build: Any, tmp_path: Path, num_env_runners: int) -> None:
    whole = build(tmp_path / "whole", num_env_runners)
    results = [whole.train()["env_runners"] for _ in range(4)]
    expected = weights(whole)
    whole.stop()

    first = build(tmp_path / "half", num_env_runners)
    again = [first.train()["env_runners"] for _ in range(2)]
    checkpoint = first.save_to_path(str(tmp_path / "checkpoint"))
    first.stop()
    second = ProxMO.from_checkpoint(checkpoint)
    again += [second.train()["env_runners"] for _ in range(2)]
    resumed = weights(second)
    second.stop()

    for name in ("behaviour_logprob_mean", "success_rate", "num_response_tokens"):
        assert [result[name] for result in again] == [result[name] for result in results], name
    assert results[0]["behaviour_logprob_mean"] != results[3]["behaviour_logprob_mean"], "nothing was learned"
    assert all(torch.equal(resumed[name], weight) for name, weight in expected.items())
