"""A model may say anything: any tokens are a response, and any response is an action or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from env_wrappers.contract import whole_text
from env_wrappers.prompting.parsing import STYLES, parse_action
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from tests.fuzz.inputs import WORDS, fuzz

PIECES = ["<think>", "</think>", "<action>", "</action>", "<|im_end|>", "</s>", "go to bed 1", "\n", " ", "<", "<think"]


@pytest.fixture(scope="module")
def chat(tiny_policy: Path) -> ChatFormat:
    return ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))


def token_ids(chat: ChatFormat, data: st.DataObject) -> np.ndarray:
    size = len(chat.tokenizer)
    marked = [id_ for piece in PIECES for id_ in chat.tokenizer.encode(piece, add_special_tokens=False)]
    token = st.integers(0, size - 1) | st.sampled_from([*marked, *chat.tokenizer.all_special_ids])
    return np.array(data.draw(st.lists(token, max_size=24)), np.int32)


@fuzz
@given(data=st.data(), append=st.booleans())
def test_any_tokens_are_a_response(chat: ChatFormat, data: st.DataObject, append: bool) -> None:
    """And the conversation goes on: the sampled ids stand in it as they are."""
    conversation = Conversation(chat, append=append)
    told: list[int] = []
    for _ in range(data.draw(st.integers(1, 3))):
        conversation.say(whole_text(data.draw(WORDS)))
        before = list(conversation.token_ids)
        ids = token_ids(chat, data)
        conversation.reply(ids)
        response = chat.decode_response(ids)
        read = chat.read(response)
        assert isinstance(response, str)
        for style in STYLES:
            action = parse_action(read, style)
            assert action is None or action == action.strip() != ""
        told = before + ids.tolist()
    if append:
        assert conversation.token_ids[: len(told)] == told


@fuzz
@given(text=st.lists(st.sampled_from(PIECES) | WORDS, max_size=10).map("".join))
def test_any_text_is_an_action_or_none(chat: ChatFormat, text: str) -> None:
    for style in STYLES:
        action: Any = parse_action(chat.read(text), style)
        assert action is None or action == action.strip() != ""
        if style == "tagged" and action is not None:
            assert "<action>" in text
            assert "</think>" in text
