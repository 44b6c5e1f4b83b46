"""What a client asks for: the body of a chat completion, read and checked field by field.

A field that would change how tokens are sampled is followed or refused, never ignored: the logprobs that are learned
from have to be those of the policy. Fields of bookkeeping are let pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from env_wrappers.contract import whole_text
from proxmo_rllib.endpoint.errors import ChatError, refuse

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_STOPS = 16
# They say nothing of how to sample.
_BOOKKEEPING = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}
)
# What else there is in OpenAI's API, where it has no effect with this value.
_NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "one response a request; ask several times."),
    "top_logprobs": ((0,), "the logprobs of the sampled tokens alone are known; leave it out."),
    "frequency_penalty": ((0,), "it would change the policy that is trained; leave it out."),
    "presence_penalty": ((0,), "it would change the policy that is trained; leave it out."),
    "logit_bias": (({},), "it would change the policy that is trained; leave it out."),
    "response_format": (({"type": "text"},), "only text is sampled; ask for the format in a message."),
    "modalities": ((["text"],), "only text is sampled."),
    "tool_choice": (("auto", "none"), "the policy chooses by itself; leave it out, or set 'none'."),
}
_FOLLOWED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "logprobs",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tools",
        "top_p",
    }
)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant called."""

    id: str
    name: str
    arguments: str  # JSON

    def key(self) -> tuple[str, str]:
        """The same for two spellings of the same call."""
        try:
            return self.name, json.dumps(json.loads(self.arguments), sort_keys=True)
        except (ValueError, RecursionError):
            return self.name, self.arguments.strip()


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation, as the client sent it."""

    role: str  # system, user, assistant or tool
    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    def key(self) -> tuple[Any, ...]:
        """What makes two messages the same: an assistant's may have lost the blanks around it on the way."""
        if self.role != "assistant":
            return self.role, self.content
        return self.role, self.content.strip(), *(call.key() for call in self.tool_calls)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion that is asked for. None is what the client left open."""

    messages: tuple[ChatMessage, ...]
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    logprobs: bool = False
    stream: bool = False
    stream_usage: bool = False


def read_request(body: Any) -> ChatRequest:
    """A request from the JSON of its body.

    Raises:
        ChatError: a field is wrong, or asks for what there is not; names it.
    """
    if not isinstance(body, dict):
        raise ChatError(400, f"The body is {body!r:.200}: send a JSON object with `model` and `messages`.")
    body = {key: value for key, value in body.items() if value is not None}
    for key, value in body.items():
        if key in _NEUTRAL:
            neutral, remedy = _NEUTRAL[key]
            if value not in neutral or isinstance(value, bool):
                raise refuse(key, value, remedy)
        elif key not in _FOLLOWED and key not in _BOOKKEEPING:
            raise refuse(key, value, "there is no such field here; leave it out.")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise refuse("stream_options", options, "it is an object, such as {'include_usage': true}.")
    limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return ChatRequest(
        messages=_messages(body.get("messages")),
        model=_text(body.get("model"), "model", "it names the model, a text."),
        max_tokens=_integer(body, limit, 1),
        temperature=_number(body, "temperature", 0.0, 2.0),
        top_p=_number(body, "top_p", 0.0, 1.0),
        seed=_integer(body, "seed", -(2**63)),
        stop=_stops(body.get("stop", [])),
        tools=() if body.get("tool_choice") == "none" else _tools(body.get("tools", [])),
        logprobs=_flag(body, "logprobs"),
        stream=_flag(body, "stream"),
        stream_usage=_flag(options, "include_usage"),
    )


def _messages(given: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(given, list) or not given:
        raise refuse("messages", given, "it is a list of one message or more.")
    read = tuple(_message(message, f"messages[{place}]") for place, message in enumerate(given))
    if read[-1].role == "assistant":
        raise refuse(
            f"messages[{len(read) - 1}].role", "assistant", "the last message is one that the assistant answers."
        )
    return read


def _message(given: Any, where: str) -> ChatMessage:
    if not isinstance(given, dict):
        raise refuse(where, given, "a message is an object with `role` and `content`.")
    role = given.get("role")
    if role not in ROLES:
        raise refuse(f"{where}.role", role, f"it is one of {', '.join(ROLES)}.")
    calls = given.get("tool_calls") or []
    if calls and role != "assistant":
        raise refuse(f"{where}.tool_calls", calls, "only an assistant's message has them.")
    if not isinstance(calls, list):
        raise refuse(f"{where}.tool_calls", calls, "it is a list.")
    content = given.get("content")
    if content is None and role == "assistant":
        content = ""
    return ChatMessage(
        role="system" if role == "developer" else role,
        content=_content(content, f"{where}.content"),
        tool_calls=tuple(_tool_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)),
    )


def _content(given: Any, where: str) -> str:
    """A text, or the texts of a list of parts, one below the other."""
    if isinstance(given, list):
        parts = []
        for place, part in enumerate(given):
            if not isinstance(part, dict) or part.get("type") != "text":
                raise refuse(f"{where}[{place}]", part, "only parts of the type 'text' are read.")
            parts.append(_text(part.get("text"), f"{where}[{place}].text", "it is a text."))
        return "\n".join(parts)
    return _text(given, where, "it is a text, or a list of parts of the type 'text'.")


def _tool_call(given: Any, where: str) -> ToolCall:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict):
        raise refuse(where, given, "a call is an object with `id`, `type` and `function`.")
    return ToolCall(
        id=_text(given.get("id", ""), f"{where}.id", "it is a text."),
        name=_name(function.get("name"), f"{where}.function.name"),
        arguments=_text(function.get("arguments"), f"{where}.function.arguments", "it is JSON, as a text."),
    )


def _tools(given: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(given, list):
        raise refuse("tools", given, "it is a list of functions.")
    for place, tool in enumerate(given):
        where = f"tools[{place}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise refuse(where, tool, "it is an object of the type 'function' with a `function`.")
        _name(tool["function"].get("name"), f"{where}.function.name")
    return tuple(json.loads(whole_text(json.dumps(tool, ensure_ascii=False))) for tool in given)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise refuse("stop", given, f"it is a text, or a list of up to {_MAX_STOPS}, none of them empty.")
    return tuple(map(whole_text, stops))


def _text(given: Any, where: str, needed: str) -> str:
    if not isinstance(given, str):
        raise refuse(where, given, needed)
    return whole_text(given)


def _name(given: Any, where: str) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise refuse(where, given, "a function's name has letters, digits, '_', '-' and '.', up to 128 of them.")
    return given


def _integer(body: Mapping[str, Any], key: str, least: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise refuse(key, value, f"it is a whole number from {least}.")
    return value


def _number(body: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:  # NaN is not
        raise refuse(key, value, f"it is a number from {least:g} to {most:g}.")
    return float(value)


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise refuse(key, value, "it is true or false.")
    return value
