"""What an agent program sends: it is read, or refused with the field's name; and whatever was read has a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from proxmo_rllib.endpoint.chat_request import read_request
from proxmo_rllib.endpoint.errors import ChatError
from proxmo_rllib.endpoint.open_episode import observation_of
from proxmo_rllib.endpoint.prefix_tree import PrefixTree
from proxmo_rllib.endpoint.programs import Outcome, read_outcome
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat
from tests.fuzz.inputs import JSON, changed, fuzz, outcome

CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "\\ud83e"}'}}
REQUEST = {
    "model": "policy",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "t", "tool_call_id": "c"},
    ],
    "temperature": 0.5,
    "max_tokens": 5,
    "seed": 1,
    "stop": ["x"],
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture(scope="module")
def tree(tiny_policy: Path) -> PrefixTree:
    return PrefixTree(ChatFormat.from_tokenizer(load_tokenizer(tiny_policy)))


@fuzz
@given(body=changed(REQUEST) | JSON)
def test_a_request_is_read_or_refused(tree: PrefixTree, body: Any) -> None:
    read, refusal = outcome(lambda: read_request(body), ChatError)
    if refusal is None:
        assert observation_of(read.messages) is not None
        assert tree.prompt(read.messages, read.tools).token_ids


@fuzz
@given(body=changed({"reward": 1.0, "success": True, "score": 0.5}) | JSON)
def test_an_outcome_is_read_or_refused(body: Any) -> None:
    read, refusal = outcome(lambda: read_outcome(body), ChatError)
    assert refusal is not None or isinstance(read, Outcome)
