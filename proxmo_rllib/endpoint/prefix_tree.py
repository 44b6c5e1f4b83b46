"""The conversations of one episode as a tree of prefixes, so that what was sampled is never encoded again.

    system ─ user ─ REPLY ─ user ─ REPLY ─ user ─ REPLY     one sequence: the client only appended
                  │       └ user' ─ REPLY                   it said something else: a fork
                  └ REPLY' ─ user ─ REPLY                   it rewrote what the assistant had said: a fork

A node is a message. A reply that was sampled has its token ids, with all that came before. The prompt of a request that
goes on from one is those ids and what the chat template puts behind them. Where nothing was sampled on the way, where
the client put words into the assistant's mouth since, and where the template rewrites what was said before (see
`conversation`), the prompt is encoded anew: a sequence of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from env_wrappers.contract import whole_text
from proxmo_rllib.endpoint.chat_request import ChatMessage
from proxmo_rllib.rollouts.chat_template import Message
from proxmo_rllib.rollouts.conversation import ChatFormat


@dataclass(frozen=True, slots=True)
class _Sampled:
    """A reply of the policy's."""

    turn: int  # its number in the episode
    token_ids: np.ndarray  # int32 [prompt + response]
    text: str  # as `ChatFormat.decode_response` gives it, thoughts included


@dataclass(slots=True)
class _Node:
    children: dict[tuple[Any, ...], _Node] = field(default_factory=dict)
    sampled: _Sampled | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine is to continue.

    Attributes:
        token_ids: all of it.
        follows: number of the turn whose tokens it begins with; None where it was encoded as a whole.
        num_known: tokens of that turn and those before it; 0 where it was encoded as a whole.
    """

    token_ids: list[int]
    follows: int | None
    num_known: int
    node: _Node


class PrefixTree:
    """Grows with every request and every reply.

    Args:
        chat: the chat template.
    """

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat
        self._roots: dict[str, _Node] = {}  # by the tools, which stand in front of everything

    def prompt(self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()) -> Prompt:
        """The prompt of a request.

        Raises:
            ValueError: the chat template refuses the messages.
        """
        node = self._roots.setdefault(json.dumps(tools, sort_keys=True), _Node())
        said: list[Message] = []
        last: _Sampled | None = None
        rest = 0
        for place, message in enumerate(messages, start=1):
            node = node.children.setdefault(message.key(), _Node())
            said.append(self._as_template_has_it(message, node.sampled))
            if message.role == "assistant":
                last, rest = node.sampled, place
        if last is None or not self._chat.appends(last.text):
            return Prompt(self._chat.prompt(said, tools), None, 0, node)
        known = last.token_ids.tolist()
        behind = self._chat.continuation(said[rest:], known[-1])
        return Prompt(known + behind, last.turn, len(known), node)

    def add(self, prompt: Prompt, turn: int, response_ids: np.ndarray, reply: ChatMessage, text: str) -> None:
        """Adds what was sampled.

        Args:
            prompt: it answers.
            turn: its number in the episode.
            response_ids: int32 [response]
            reply: as the client is given it, and will send it back.
            text: of the response, thoughts included.
        """
        node = prompt.node.children.setdefault(reply.key(), _Node())
        node.sampled = _Sampled(turn, np.concatenate([np.asarray(prompt.token_ids, np.int32), response_ids]), text)

    def _as_template_has_it(self, message: ChatMessage, sampled: _Sampled | None) -> Message:
        if message.role == "assistant":
            if sampled is not None:
                return self._chat.assistant_message(sampled.text)
            said = self._chat.assistant_message(message.content)
            calls = [
                {"type": "function", "function": {"name": call.name, "arguments": self._arguments(call.arguments)}}
                for call in message.tool_calls
            ]
            return said | {"tool_calls": calls} if calls else said
        if message.role == "user":
            return self._chat.user_message(message.content)
        if message.role == "system":  # its author is who wrote the agent
            return {"role": "system", "content": message.content}
        return {"role": message.role, "content": self._chat.protect(message.content)}

    def _arguments(self, written: str) -> Any:
        """Of a call, as chat templates have them: an object."""
        try:
            return _each_text(json.loads(written), lambda text: self._chat.protect(whole_text(text)))
        except (ValueError, RecursionError):
            return self._chat.protect(written)


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(entry, change) for entry in value]
    if isinstance(value, dict):
        return {change(key): _each_text(entry, change) for key, entry in value.items()}
    return value
