"""From sampled tokens to what a client reads: where a stop text ends them, the answer without its thought, tool calls.

Cutting keeps a beginning of what was sampled, token by token: an engine that stopped there would have sampled the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxmo_rllib.endpoint.chat_request import ChatMessage, ChatRequest, ToolCall
from proxmo_rllib.endpoint.errors import ChatError
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.types import Completion

_CALL, _CALL_END = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Response:
    """What was sampled for a request, as far as it counts.

    Attributes:
        completion: the tokens that count.
        raw: their text, without a stop token.
        message: what the client reads, and sends back with its next request.
        thought: what the policy thought first, where its model marks that; None for nothing.
        finish_reason: "stop", "length" or "tool_calls".
    """

    completion: Completion
    raw: str
    message: ChatMessage
    thought: str | None
    finish_reason: str


def read_response(chat: ChatFormat, completion: Completion, request: ChatRequest, call_ids: str) -> Response:
    """What a client gets of a completion.

    Args:
        chat: the chat template.
        completion: what an engine sampled.
        request: asked for it.
        call_ids: begins the ids of tool calls; unique in the episode.
    """
    if request.max_tokens is not None and len(completion.token_ids) > request.max_tokens:
        completion = _first(completion, request.max_tokens, "length")
    completion, raw, shown = _cut(chat, completion, request.stop)
    thought, answer = split_thought(chat, shown)
    content, calls = _read_calls(answer, call_ids) if request.tools else (answer, ())
    reason = "length" if completion.finish_reason == "length" else "tool_calls" if calls else "stop"
    return Response(completion, raw, ChatMessage("assistant", content, calls), thought, reason)


def check_tools(chat: ChatFormat) -> None:
    """Whether the chat template tells of tools, and has them called in the way that is read here.

    Raises:
        ChatError: it does not.
    """
    source = chat.template_source
    if "tools" not in source:
        what = "the chat template of the served model does not tell of tools"
    elif _CALL not in source or "<function=" in source:
        what = f"the served model writes calls in another way than JSON between {_CALL} and {_CALL_END}"
    else:
        return
    raise ChatError(
        400,
        f"tools: {what}; describe them in a message and read the answer yourself, or serve another model.",
        param="tools",
        code="unsupported_value",
    )


def split_thought(chat: ChatFormat, text: str) -> tuple[str | None, str]:
    """The thought with which a response begins, if the model marks one, and the answer: empty if it was not begun.

    Args:
        chat: the chat template; what it opened (`<think>`) belongs to the response.
        text: of the response.
    """
    whole = chat.opened + text
    if not chat.thoughts.in_fields and not whole.lstrip().startswith(chat.thoughts.opening):
        return None, text
    thought, answer = chat.thoughts.split(whole)
    if thought is None and answer is None:
        return None, text
    return (None if thought is None else thought.strip("\n")), (answer or "").lstrip("\n")


def _first(completion: Completion, count: int, reason: str) -> Completion:
    return replace(
        completion,
        token_ids=completion.token_ids[:count],
        logprobs=completion.logprobs[:count],
        finish_reason=reason,
        version_changes=tuple(change for change in completion.version_changes if change[0] < count),
    )


def _cut(chat: ChatFormat, completion: Completion, stops: Sequence[str]) -> tuple[Completion, str, str]:
    """The completion up to the token with which the first stop text is complete, its text, and what comes before it."""
    raw = chat.decode_response(completion.token_ids)
    if not any(stop in raw for stop in stops):
        return completion, raw, raw
    low, high = 1, len(completion.token_ids)  # the number of tokens that is looked for
    while low < high:
        middle = (low + high) // 2
        text = chat.decode_response(completion.token_ids[:middle])
        low, high = (low, middle) if any(stop in text for stop in stops) else (middle + 1, high)
    raw = chat.decode_response(completion.token_ids[:low])
    place = min(raw.find(stop) for stop in stops if stop in raw)
    return _first(completion, low, "stop"), raw, raw[:place]


def _read_calls(text: str, call_ids: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The text before the first call, and the calls. What is none that can be read stays text."""
    before, found, rest = text.partition(_CALL)
    calls: list[ToolCall] = []
    while found:
        written, closed, rest = rest.partition(_CALL_END)
        call = _read_call(written, f"{call_ids}{len(calls)}") if closed else None
        if call is None:
            return text, ()
        calls.append(call)
        _, found, rest = rest.partition(_CALL)
    return (before.strip(), tuple(calls)) if calls else (text, ())


def _read_call(written: str, call_id: str) -> ToolCall | None:
    try:
        call: Any = json.loads(written)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    return ToolCall(call_id, call["name"], json.dumps(arguments, ensure_ascii=False))
