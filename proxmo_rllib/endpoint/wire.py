"""What goes back to a client, as OpenAI's API has it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from proxmo_rllib.endpoint.chat_request import ChatRequest
from proxmo_rllib.endpoint.open_episode import Answer

_LEAST_LOGPROB = -9999.0  # OpenAI's; JSON has no infinity


def completion_json(answer: Answer, request: ChatRequest) -> dict[str, Any]:
    """A chat completion."""
    response = answer.response
    message: dict[str, Any] = {"role": "assistant", "content": response.message.content, "refusal": None}
    if response.thought is not None:
        message["reasoning_content"] = response.thought
    if response.message.tool_calls:
        message["content"] = response.message.content or None
        message["tool_calls"] = _tool_calls(answer)
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": response.finish_reason,
        "logprobs": _logprobs(answer) if request.logprobs else None,
    }
    return _head(request, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}


def completion_events(answer: Answer, request: ChatRequest) -> Iterator[str]:
    """The same as server-sent events. The response is there as a whole, so its text comes in one piece."""
    response = answer.response
    head = _head(request, "chat.completion.chunk")
    usage: dict[str, Any] = {"usage": None} if request.stream_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return _event(head | {"choices": [choice]} | usage)

    yield chunk({"role": "assistant", "content": ""})
    if response.thought is not None:
        yield chunk({"reasoning_content": response.thought})
    yield chunk({"content": response.message.content}, logprobs=_logprobs(answer) if request.logprobs else None)
    if response.message.tool_calls:
        calls = [{"index": index, **call} for index, call in enumerate(_tool_calls(answer))]
        yield chunk({"tool_calls": calls})
    yield chunk({}, response.finish_reason)
    if request.stream_usage:
        yield _event(head | {"choices": [], "usage": _usage(answer)})
    yield "data: [DONE]\n\n"


def models_json(model: str) -> dict[str, Any]:
    """The list of models: the policy."""
    return {"object": "list", "data": [model_json(model)]}


def model_json(model: str) -> dict[str, Any]:
    """The policy as a model."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "proxmo_rllib"}


def _head(request: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(answer: Answer) -> dict[str, int]:
    sampled = len(answer.response.completion.token_ids)
    return {
        "prompt_tokens": answer.num_prompt_tokens,
        "completion_tokens": sampled,
        "total_tokens": answer.num_prompt_tokens + sampled,
    }


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.response.message.tool_calls
    ]


def _logprobs(answer: Answer) -> dict[str, Any]:
    """Of every token that was sampled, those of a thought and of a stop text too."""
    entries = zip(answer.token_texts, answer.response.completion.logprobs.tolist(), strict=True)
    return {
        "content": [
            {"token": text, "logprob": max(logprob, _LEAST_LOGPROB), "bytes": list(text.encode()), "top_logprobs": []}
            for text, logprob in entries
        ],
        "refusal": None,
    }
