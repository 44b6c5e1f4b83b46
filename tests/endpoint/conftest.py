"""The endpoint with an engine that says what the test wants, and OpenAI's own client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from proxmo_rllib.endpoint.chat_request import ChatRequest
from proxmo_rllib.endpoint.open_episode import OpenEpisode
from proxmo_rllib.endpoint.server import EndpointServer
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.types import Completion

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="session")
def chat(tiny_policy: Path) -> ChatFormat:
    return ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))


class Desk:
    """An endpoint on loopback, with an event loop for its episodes."""

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = EndpointServer("127.0.0.1", 0, TOKEN, "policy")
        self.prompts: list[list[int]] = []

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def open(self, key: str, say: Callable[[str], Any], **limits: Any) -> OpenEpisode:
        """An episode whose engine answers a prompt (as text) with `say`."""

        async def sample(prompt_ids: list[int], observation: str, request: ChatRequest) -> Completion:
            self.prompts.append(list(prompt_ids))
            said = say(self.chat.tokenizer.decode(prompt_ids))
            if isinstance(said, Completion):
                return said
            return completion(self.chat, said)

        async def make() -> OpenEpisode:
            return OpenEpisode(key, sample, self.chat, **({"max_turns": 20, "max_prompt_tokens": 4000} | limits))

        episode = self.do(make())
        self.server.add(key, episode)
        return episode

    def client(self, key: str, token: str = TOKEN) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.server.base_url(key), api_key=token, max_retries=0, timeout=30)


def completion(chat: ChatFormat, text: str, ends: bool = True) -> Completion:
    """What an engine would have sampled that says this."""
    ids = [*chat.encode_text(text), *([chat.stop_token_ids[0]] if ends else [])]
    logprobs = -np.arange(1, len(ids) + 1, dtype=np.float32)
    return Completion(np.asarray(ids, np.int32), logprobs, "stop" if ends else "length", policy_version=7)


@pytest.fixture
def desk(chat: ChatFormat) -> Iterator[Desk]:
    made = Desk(chat)
    yield made
    made.server.stop()
    made.loop.call_soon_threadsafe(made.loop.stop)
