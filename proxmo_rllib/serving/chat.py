"""A conversation with a policy: in this process, or at the address of a server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol

from proxmo_rllib.inference.engine import Engine
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.thoughts import THINK
from proxmo_rllib.types import SamplingParams

# A reply of a few words is not worth asking for.
_LEAST_TOKENS = 8
_ANSWER_S = 600.0


class ChatError(RuntimeError):
    """A message got no reply; says why, and what to do."""


@dataclass(slots=True)
class Sampling:
    """How replies are sampled.

    Attributes:
        temperature: 0 is greedy.
        max_tokens: of a reply.
        seed: of the next reply; goes up by one every time. None for another one each time.
    """

    temperature: float = 1.0
    max_tokens: int = 512
    seed: int | None = None

    def next_seed(self) -> int | None:
        """The seed of one reply."""
        seed = self.seed
        if seed is not None:
            self.seed = seed + 1
        return seed


@dataclass(frozen=True, slots=True)
class Reply:
    """What the policy said.

    Attributes:
        answer: without its thought; empty if it was cut off while it thought.
        thought: before the answer, if it thinks.
        cut_off: whether it came to the limit of tokens before its end.
    """

    answer: str
    thought: str | None
    cut_off: bool


class Talker(Protocol):
    """Whom one talks to. Keeps the conversation."""

    def reply(self, message: str, sampling: Sampling, show: Callable[[str], None]) -> Reply:
        """The reply to a message; pieces of it are shown as they come, if they come in pieces.

        Raises:
            ChatError: there is none; the conversation is as it was.
        """

    def reset(self) -> None:
        """Forgets what was said."""

    def close(self) -> None:
        """Ends what it has started."""


class PolicyTalker:
    """A policy in this process.

    Args:
        engine: samples.
        chat: its chat template, taken apart.
        max_model_len: tokens of the whole conversation.
    """

    def __init__(self, engine: Engine, chat: ChatFormat, max_model_len: int) -> None:
        self._engine = engine
        self._chat = chat
        self._max_model_len = max_model_len
        self._loop = asyncio.new_event_loop()
        self._said: list[tuple[str, Any]] = []

    def reply(self, message: str, sampling: Sampling, show: Callable[[str], None]) -> Reply:
        conversation = Conversation(self._chat, append=True)
        for before, response in self._said:
            conversation.say(before)
            conversation.reply(response)
        conversation.say(message)
        prompt = conversation.token_ids
        room = min(sampling.max_tokens, self._max_model_len - len(prompt))
        if room < min(_LEAST_TOKENS, sampling.max_tokens):
            raise ChatError(
                f"The conversation has {len(prompt):,} tokens with this message, of {self._max_model_len:,} that fit: "
                "/reset begins anew, --max-model-len may allow more."
            )
        params = SamplingParams(sampling.temperature, room, self._chat.stop_token_ids, sampling.next_seed())
        # Always the same loop: the engine may keep a task on it.
        completion = self._loop.run_until_complete(self._engine.generate(prompt, params))
        self._said.append((message, completion.token_ids))
        text = self._chat.decode_response(completion.token_ids)
        thought, answer = THINK.split(self._chat.read(text))
        return Reply(answer or "", thought, completion.finish_reason == "length")

    def reset(self) -> None:
        self._said.clear()

    def close(self) -> None:
        self._engine.close()
        self._loop.close()


class ServedTalker:
    """A policy at an address.

    Args:
        url: up to and with `/v1`.
        key: that the server wants; empty if it wants none.
        model: by which it is asked for.
        system: message that opens the conversation, if any.
    """

    def __init__(self, url: str, key: str, model: str, system: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._model = model
        self._opening = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def check(self) -> None:
        """Finds out whether the server answers and has the model.

        Raises:
            ChatError: it does not.
        """
        with self._ask("models", None) as answer:
            names = [entry["id"] for entry in json.load(answer)["data"]]
        if self._model not in names:
            raise ChatError(f"{self._url} has no model {self._model!r}; it has {', '.join(names)}: say --model NAME.")

    def reply(self, message: str, sampling: Sampling, show: Callable[[str], None]) -> Reply:
        messages = [*self._opening, *self._said, {"role": "user", "content": message}]
        request: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "stream": True,
        }
        if (seed := sampling.next_seed()) is not None:
            request["seed"] = seed
        text, thought, ending = "", "", ""
        with self._ask("chat/completions", request) as answer:
            for line in answer:
                data = line.decode().removeprefix("data:").strip()
                if not data or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise ChatError(f"{self._url}: {event['error'].get('message', event['error'])}")
                for choice in event["choices"]:
                    delta = choice["delta"]
                    # Where the server has a parser for thoughts they come apart, under one of two names.
                    thought += delta.get("reasoning") or delta.get("reasoning_content") or ""
                    piece = delta.get("content") or ""
                    text += piece
                    show(piece)
                    ending = choice.get("finish_reason") or ending
        self._said += [{"role": "user", "content": message}, {"role": "assistant", "content": text}]
        inner, said = THINK.split(text)
        return Reply(said or "", thought or inner, ending == "length")

    def reset(self) -> None:
        self._said.clear()

    def close(self) -> None:
        """Nothing is kept open."""

    def _ask(self, path: str, content: dict[str, Any] | None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(f"{self._url}/{path}", body, headers)
        try:
            return urllib.request.urlopen(request, timeout=_ANSWER_S)
        except urllib.error.HTTPError as error:
            raise ChatError(f"{self._url}: {_words(error)}") from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ChatError(
                f"{self._url} does not answer ({reason}); `proxmo serve` starts a server and says its address."
            ) from error


def _words(error: urllib.error.HTTPError) -> str:
    """What a server says of a refusal."""
    text = error.read().decode("utf-8", "replace")
    try:
        said = json.loads(text)
        reason = str(said.get("error", said).get("message", text)) if isinstance(said, dict) else text
    except (ValueError, AttributeError):
        reason = text
    return f"{error.code}: {reason[:500]}"
