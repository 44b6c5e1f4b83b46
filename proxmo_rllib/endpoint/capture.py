"""Serving without a trainer: any id opens an episode, and what has ended goes to a record that `proxmo view` shows."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from proxmo_rllib.endpoint.chat_request import ChatRequest
from proxmo_rllib.endpoint.errors import ChatError, refuse
from proxmo_rllib.endpoint.open_episode import OpenEpisode
from proxmo_rllib.endpoint.server import EndpointServer
from proxmo_rllib.record_file import NAME, RecordFile
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.rollouts.record import TokenTexts, episode_record
from proxmo_rllib.types import Completion, Episode, SamplingParams, Status

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class Sampler(Protocol):
    """What is needed of an engine."""

    async def generate(self, prompt_ids: list[int], params: SamplingParams) -> Completion: ...


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """What an episode may have.

    Attributes:
        max_turns: responses.
        max_prompt_tokens: of a prompt.
        max_response_tokens: of a response, also where a request asks for more.
        idle_s: seconds without a request after which an episode is given up.
    """

    max_turns: int
    max_prompt_tokens: int
    max_response_tokens: int
    idle_s: float


class Capture:
    """Opens episodes for an `EndpointServer`, and records those that have ended. Made on the engine's event loop.

    Args:
        engine: samples.
        chat: the chat template.
        folder: of the record.
        limits: of every episode.
        temperature: where a request says none.

    Attributes:
        num_recorded: episodes that have ended.
    """

    def __init__(
        self, engine: Sampler, chat: ChatFormat, folder: Path, limits: CaptureLimits, temperature: float
    ) -> None:
        self._engine, self._chat, self._limits, self._temperature = engine, chat, limits, temperature
        self._file = RecordFile(folder / NAME)
        self._texts = TokenTexts(chat.tokenizer.decode)
        self._open: dict[str, tuple[OpenEpisode, str]] = {}
        self._asked: dict[str, float] = {}
        self._ended: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self.num_recorded = 0

    async def open(self, key: str, task: str) -> OpenEpisode:
        """Opens an episode; called on the server's event loop.

        Args:
            key: its id.
            task: what is played; episodes of one task are shown as a group.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._open_here(key, task), self._loop))

    async def watch(self, server: EndpointServer) -> None:
        """Records episodes that close, and gives up those that nobody asks anything any more; until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                for key, (episode, task) in list(self._open.items()):
                    idle = time.monotonic() - self._asked[key]
                    if episode.closed.done():
                        self._record(server, key, episode, task, "")
                    elif idle > self._limits.idle_s:
                        reason = f"there was no request and no reward for {self._limits.idle_s:g} s"
                        self._record(server, key, episode, task, reason)
        finally:
            for key, (episode, task) in list(self._open.items()):
                self._record(server, key, episode, task, "the endpoint was ended before its reward")

    async def _open_here(self, key: str, task: str) -> OpenEpisode:
        if key in self._ended:
            raise ChatError(410, f"episode={key!r} has ended: take another id.", code="episode_closed")

        async def sample(prompt_ids: list[int], observation: str, request: ChatRequest) -> Completion:
            self._asked[key] = time.monotonic()
            return await self._engine.generate(prompt_ids, self._params(request))

        episode = OpenEpisode(
            task,
            sample,
            self._chat,
            max_turns=self._limits.max_turns,
            max_prompt_tokens=self._limits.max_prompt_tokens,
        )
        self._open[key] = episode, task
        self._asked[key] = time.monotonic()
        return episode

    def _params(self, request: ChatRequest) -> SamplingParams:
        if request.top_p not in (None, 1.0):
            raise refuse("top_p", request.top_p, "the logprobs would not be the policy's; leave it out, or set 1.")
        limit = self._limits.max_response_tokens
        return SamplingParams(
            temperature=self._temperature if request.temperature is None else request.temperature,
            max_tokens=limit if request.max_tokens is None else min(limit, request.max_tokens),
            stop_token_ids=self._chat.stop_token_ids,
            seed=None if request.seed is None else request.seed % 2**31,
        )

    def _record(self, server: EndpointServer, key: str, episode: OpenEpisode, task: str, reason: str) -> None:
        episode.end()
        server.remove(key)
        del self._open[key], self._asked[key]
        self._ended.add(key)
        if failure := episode.closed.exception():
            reason = f"the policy could not answer: {failure}"
        status = episode.status()
        if status is None:
            logger.warning("Episode %s ended without a reward: %s.", key, reason)
        played = Episode(
            episode_id=key,
            group_id=task,
            task=task,
            task_type="",
            seed=0,
            turns=episode.finished_turns(),
            status=Status.ERROR if status is None else status,
            score=episode.outcome.score if episode.outcome is not None else None,
            error=reason if status is None else None,
        )
        record: Mapping[str, Any] = episode_record(played, 1, token_texts=self._texts)
        self._file.append([json.dumps(record, ensure_ascii=False)])
        self.num_recorded += 1
