"""What was captured is what the learner sees: engine, endpoint, OpenAI's client and learner in one process, no Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID
from safetensors.torch import save_file

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.endpoint import AgentEpisode, Outcome, OutsideAgent
from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.learner import GroupedTrainingData
from proxmo_rllib.rollouts.env_runner import TextEnvRunner
from proxmo_rllib.types import Assignment, Completion, SamplingParams

GROUPS, SIZE = 2, 4


def react(client: openai.OpenAI, model: str, task: str) -> bool:
    """A ReAct loop that knows nothing of this package. Once it shortens its history, as many do."""
    messages: list[Any] = [
        {"role": "system", "content": "Say Thought: and Action:."},
        {"role": "user", "content": f"You are in the room {task}."},
    ]
    for turn in range(3):
        if turn == 2:
            messages = [messages[0], {"role": "user", "content": f"So far: {messages[2]['content']}"}]
        reply = client.chat.completions.create(model=model, messages=messages, temperature=0, stop=["Observation:"])
        said = reply.choices[0].message.content or ""
        action = said.rpartition("Action:")[2].strip()
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": f"Observation: {turn}"}]
    return sum(action.encode()) % 2 == 0


class Rooms(OutsideAgent):
    def tasks(self, split: str) -> list[str]:
        return [f"{split}-{number}" for number in range(GROUPS)]

    def play(self, episode: AgentEpisode) -> Outcome:
        client = openai.OpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0)
        solved = react(client, episode.model, episode.task)
        return Outcome(float(solved), solved)


class DirectClient:
    """An engine of this process."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def generate(self, prompt_ids: list[int], params: SamplingParams, affinity: int = 0) -> Completion:
        return await self._engine.generate(prompt_ids, params)  # type: ignore[no-any-return]

    def follow(self, newer: Any) -> None:
        """The engine is the same."""


def test_a_learner_computes_what_the_engine_sampled_and_learns(tiny_policy: Path):
    config = (
        ProxMOConfig()
        .environment(Rooms)
        .policy(pretrained=tiny_policy)
        .inference(engine="transformers", max_model_len=256, max_response_tokens=8)
        .env_runners(max_turns=5, max_concurrent_episodes=4)
        .training(group_size=SIZE, num_groups=GROUPS, lr=1e-3)
    )
    engine = build_engine(EngineConfig(str(tiny_policy), kind="transformers", max_model_len=256, max_num_seqs=8))
    runner = TextEnvRunner(config=config)
    runner.connect(DirectClient(engine))  # type: ignore[arg-type]
    try:
        played = runner.sample(
            assignments=[Assignment(f"g{n}", f"train-{n}", seed=n, size=SIZE) for n in range(GROUPS)]
        )
    finally:
        runner.stop()
        engine.close()
    assert played.errors == ()
    episodes = [episode for group in played.groups for episode in group.episodes]
    assert len(episodes) == GROUPS * SIZE
    for episode in episodes:
        assert [turn.appended for turn in episode.turns] == [False, True, False]
        assert len(list(episode.sequences())) == 2
    assert 0 < sum(episode.success for episode in episodes) < len(episodes)

    learner = config.copy(copy_frozen=False).build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    before = {name: p.detach().clone() for name, p in learner.policy.lm.named_parameters()}
    # A larger divergence than rounding's would end it: prompts, tokens and logprobs are those of the sampling.
    stats = learner.update(training_data=GroupedTrainingData(episodes=episodes), num_epochs=1)[DEFAULT_MODULE_ID]
    assert stats["kl_to_engine"].peek() < 1e-6
    assert stats["num_sequences"].peek() == 2 * len(episodes)
    assert any(not np.array_equal(before[name], p.detach()) for name, p in learner.policy.lm.named_parameters())


class FirstHalf(OutsideAgent):
    """A program that wants a reply from the first half of the alphabet."""

    def tasks(self, split: str) -> list[str]:
        return [f"{split}-{number}" for number in range(GROUPS)]

    def play(self, episode: AgentEpisode) -> Outcome:
        client = openai.OpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0)
        messages: list[Any] = [{"role": "user", "content": f"You are in the room {episode.task}."}]
        reply = client.chat.completions.create(model=episode.model, messages=messages)
        said = (reply.choices[0].message.content or "").strip().lower()
        solved = "a" <= said[:1] <= "m"
        return Outcome(float(solved), solved)


@pytest.mark.slow
def test_a_policy_learns_what_a_program_wants(tiny_policy: Path, tmp_path: Path):
    config = (
        ProxMOConfig()
        .environment(FirstHalf)
        .policy(pretrained=tiny_policy)
        .inference(engine="transformers", max_model_len=64, max_response_tokens=3)
        .env_runners(max_concurrent_episodes=32)
        .training(group_size=16, num_groups=GROUPS, lr=3e-3)
    )
    engine = build_engine(EngineConfig(str(tiny_policy), kind="transformers", max_model_len=64, max_num_seqs=32))
    learner = config.copy(copy_frozen=False).build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    runner = TextEnvRunner(config=config)
    rates = []
    try:
        for iteration in range(15):
            runner.connect(DirectClient(engine))  # type: ignore[arg-type]
            dealt = [Assignment(f"{iteration}-{n}", f"train-{n}", seed=GROUPS * iteration + n, size=16) for n in (0, 1)]
            played = runner.sample(assignments=dealt)
            assert played.errors == ()
            episodes = [episode for group in played.groups for episode in group.episodes]
            rates.append(sum(episode.success for episode in episodes) / len(episodes))
            learner.update(training_data=GroupedTrainingData(episodes=episodes), num_epochs=1)
            weights = {name: p.detach().contiguous() for name, p in learner.policy.lm.named_parameters()}
            save_file(weights, tmp_path / "weights.safetensors")
            asyncio.run(engine.load_weights(tmp_path / "weights.safetensors", learner.policy_version))
    finally:
        runner.stop()
        engine.close()
    print("success rates:", [round(rate, 2) for rate in rates])
    assert np.mean(rates[-3:]) > np.mean(rates[:3]) + 0.2
