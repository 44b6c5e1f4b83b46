"""A text environment that does as it is told, and an agent that says what the test wants."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from env_wrappers.core import AnyText
from env_wrappers.prompting import wrap
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.agents import EnginePolicyAgent
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.rollouts.env_pool import EnvPool
from proxmo_rllib.rollouts.play import PlayResult, play_groups
from proxmo_rllib.types import Assignment, Completion, SamplingParams


class ObedientEnv(gymnasium.Env[str, str]):
    """ "win", "lose", "stop" (truncated) and "boom" (raises) do what they say; everything else goes on."""

    metadata = {"render_modes": [], "blocking": False}

    def __init__(self, size: int = 4) -> None:
        self.observation_space = self.action_space = AnyText()
        self.size = size
        self.closed = False
        self.steps = 0

    def tasks(self, split: str) -> list[str]:
        return [f"{split}-{index}" for index in range(self.size)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.task = (options or {}).get("task", "none")
        self.steps = 0
        return f"{self.task} begins with {seed}", self.info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if action == "boom":
            raise OSError("the disk is on fire")
        won = action == "win"
        return f"step {self.steps}", float(won), won or action == "lose", action == "stop", self.info(won)

    def info(self, success: bool) -> dict[str, Any]:
        return {
            "admissible_actions": ["win", "lose", "go"],
            "success": success,
            "task": self.task,
            "task_type": self.task.split("-")[0],
            "goal": "win",
        }

    def close(self) -> None:
        self.closed = True


class SayingClient:
    """In the place of the engines: answers with text."""

    def __init__(self, chat: ChatFormat, say: Callable[[str, int], Any], *, cut: bool = False) -> None:
        self._chat, self._say, self._cut = chat, say, cut
        self.requests: list[tuple[str, SamplingParams, int]] = []
        self.under_way = 0
        self.most_under_way = 0

    async def generate(self, prompt_ids: list[int], params: SamplingParams, affinity: int = 0) -> Completion:
        prompt = self._chat.tokenizer.decode(prompt_ids)
        self.requests.append((prompt, params, affinity))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            said = self._say(prompt, prompt.count("<|assistant|>"))
            text = await said if inspect.isawaitable(said) else said
        finally:
            self.under_way -= 1
        ids = self._chat.encode_text(text) + ([] if self._cut else [self._chat.stop_token_ids[0]])
        logprobs = np.full(len(ids), -0.25, np.float32)
        return Completion(np.asarray(ids, np.int32), logprobs, "length" if self._cut else "stop", policy_version=3)


@pytest.fixture(scope="session")
def chat(tiny_policy: Path) -> ChatFormat:
    return ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))


@pytest.fixture(scope="session")
def obedient_env() -> type[ObedientEnv]:
    return ObedientEnv


@pytest.fixture
def make_client(chat: ChatFormat) -> Callable[..., SayingClient]:
    """`make_client(say)`: `say` gets the prompt as text and the number of the turn, from 1; it may be a coroutine."""

    def make(say: Callable[[str, int], Any], **options: Any) -> SayingClient:
        return SayingClient(chat, say, **options)

    return make


@pytest.fixture
def play(chat: ChatFormat) -> Callable[..., PlayResult]:
    """Plays assignments with a client in wrapped environments."""

    def run(
        client: Any,
        assignments: list[Assignment],
        make_env: Callable[[], Any] = ObedientEnv,
        *,
        limit: int = 64,
        history: int | None = None,
        penalty: float = 0.0,
        max_turns: int = 5,
        max_prompt_tokens: int = 10_000,
        pool: EnvPool | None = None,
        seconds: float | None = None,
    ) -> PlayResult:
        def make() -> Any:
            bare = make_env()
            return wrap(bare, style="bare", template="bare", history=history, invalid_action_penalty=penalty)

        def agent(assignment: Assignment, index: int) -> EnginePolicyAgent:
            params = SamplingParams(1.0, 8, chat.stop_token_ids, seed=100 * index)
            return EnginePolicyAgent(client, params, affinity=assignment.seed)

        async def everything() -> PlayResult:
            return await asyncio.wait_for(
                play_groups(
                    pool or EnvPool(make, limit),
                    assignments,
                    agent,
                    chat,
                    seconds=seconds,
                    append=history is None,
                    max_turns=max_turns,
                    max_prompt_tokens=max_prompt_tokens,
                ),
                timeout=60,
            )

        return asyncio.run(everything())

    return run


@pytest.fixture
def assignments() -> Callable[..., list[Assignment]]:
    """Groups of the tasks of `ObedientEnv`."""

    def make(*tasks: str, size: int = 2) -> list[Assignment]:
        return [Assignment(f"group-{index}", task, seed=index, size=size) for index, task in enumerate(tasks)]

    return make
