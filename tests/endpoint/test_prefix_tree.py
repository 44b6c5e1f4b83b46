"""What becomes of a client that rewrites its history: it forks, and every turn keeps its exact prompt."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from proxmo_rllib.endpoint.chat_request import ChatMessage, ToolCall, read_request
from proxmo_rllib.endpoint.errors import ChatError
from proxmo_rllib.endpoint.open_episode import observation_of
from proxmo_rllib.endpoint.prefix_tree import PrefixTree
from proxmo_rllib.endpoint.responses import check_tools, read_response
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.types import Completion, Episode, Status
from tests.endpoint.conftest import completion
from tests.rollouts.chat_families import FAMILIES, tokenizer_for


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage("assistant", text)


def request(*messages: ChatMessage) -> dict[str, Any]:
    return {"model": "policy", "messages": [{"role": m.role, "content": m.content} for m in messages]}


def test_a_rewritten_history_is_a_fork_and_loses_nothing(desk: Any):
    """Appended, rewritten, back to the first branch: each prompt is whole and exact, in the order of time."""
    answers = iter(["one", "two", "three", "four"])
    episode = desk.open("e", lambda prompt: next(answers))
    for messages in (
        [user("a")],
        [user("a"), assistant("one"), user("b")],
        [user("a"), assistant("SUMMARY"), user("c")],  # the client says that the policy said something else
        [user("a"), assistant("one"), user("b"), assistant("two"), user("d")],
    ):
        desk.do(episode.complete(read_request(request(*messages))))
    assert [turn.appended for turn in episode.turns] == [False, True, False, False]
    whole = Episode("e", "g", "t", "", 0, episode.finished_turns(), Status.SUCCESS)
    sequences = list(whole.sequences())
    assert [sequence.turns for sequence in sequences] == [(0, 1), (2,), (3,)]
    for sequence in sequences:
        for number, (start, stop) in zip(sequence.turns, sequence.spans, strict=True):
            assert sequence.token_ids[:start].tolist() == desk.prompts[number]
            assert sequence.token_ids[start:stop].tolist() == episode.turns[number].response_ids.tolist()
    # The last turn goes on from what was sampled in the second, though another branch was in between.
    sampled = [*desk.prompts[1], *episode.turns[1].response_ids.tolist()]
    assert desk.prompts[3][: len(sampled)] == sampled
    assert "SUMMARY" in desk.chat.tokenizer.decode(desk.prompts[2])


def test_a_reply_that_would_be_encoded_otherwise_keeps_its_sampled_tokens(desk: Any):
    """A policy may say "go" letter by letter; the text encoded again would be another token."""
    letters = [desk.chat.encode_text(letter)[0] for letter in "go"]
    assert desk.chat.encode_text("go") != letters
    spelt = Completion(np.asarray(letters, np.int32), np.zeros(2, np.float32), "length", policy_version=0)
    answers = iter([spelt, "look"])
    episode = desk.open("e", lambda prompt: next(answers))
    desk.do(episode.complete(read_request(request(user("a")))))
    desk.do(episode.complete(read_request(request(user("a"), assistant("go"), user("b")))))
    assert desk.prompts[1][len(desk.prompts[0]) :][:2] == letters
    assert episode.turns[1].appended


def test_a_template_that_rewrites_thoughts_forks_at_every_turn():
    family = FAMILIES["Qwen 3"]
    chat = ChatFormat.from_tokenizer(tokenizer_for(family), template_kwargs=family.kwargs)
    tree = PrefixTree(chat)
    first = tree.prompt([user("a")])
    asked = read_request(request(user("a")))
    ids, _ = chat.demonstrate("look", "Where is it?")
    response = read_response(chat, Completion(ids, np.zeros(len(ids), np.float32), "stop", 0), asked, "")
    assert response.message.content == "look"
    assert response.thought == "Where is it?"
    tree.add(first, 0, ids, response.message, response.raw)
    second = tree.prompt([user("a"), response.message, user("b")])
    assert second.follows is None
    text = chat.tokenizer.decode(second.token_ids)
    assert "look" in text
    assert "Where is it?" not in text


def test_what_a_program_says_is_text_but_for_its_instructions(desk: Any):
    tree = PrefixTree(desk.chat)
    markup = desk.chat.tokenizer.decode([desk.chat.stop_token_ids[0]])
    for message in (user(f"a {markup}"), ChatMessage("tool", f"a {markup}")):
        prompt = tree.prompt([user("x"), assistant(f"y {markup}"), message])
        assert prompt.token_ids.count(desk.chat.stop_token_ids[0]) == 1  # the end of the assistant's message


@pytest.mark.parametrize(
    ("messages", "observation"),
    [
        ([ChatMessage("system", "s"), user("a")], "a"),
        ([user("a"), assistant("b"), ChatMessage("tool", "c"), user("d")], "c\nd"),
        ([ChatMessage("system", "s")], "s"),
    ],
)
def test_the_observation_is_what_was_said_since_the_last_reply(messages: list[ChatMessage], observation: str):
    assert observation_of(tuple(messages)) == observation


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{{ ' Call with <tool_call>.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tool_chat() -> ChatFormat:
    tokenizer = copy.deepcopy(tokenizer_for(FAMILIES["Qwen 2.5"]))
    tokenizer.chat_template = TEMPLATE
    return ChatFormat.from_tokenizer(tokenizer)


def test_tool_calls_are_read_and_their_tokens_stay(tool_chat: ChatFormat):
    asked = read_request(request(user("a")) | {"tools": TOOLS})
    tree = PrefixTree(tool_chat)
    prompt = tree.prompt(asked.messages, asked.tools)
    assert "look_up" in tool_chat.tokenizer.decode(prompt.token_ids)
    said = 'Let me see.\n<tool_call>\n{"name": "look_up", "arguments": {"word": "lamp"}}\n</tool_call>'
    response = read_response(tool_chat, completion(tool_chat, said), asked, "call_0_")
    (call,) = response.message.tool_calls
    assert (call.id, call.name, json.loads(call.arguments)) == ("call_0_0", "look_up", {"word": "lamp"})
    assert response.message.content == "Let me see."
    assert response.finish_reason == "tool_calls"
    tree.add(prompt, 0, response.completion.token_ids, response.message, response.raw)
    # As a client sends it back: the arguments written anew.
    again = ChatMessage("assistant", "Let me see.", (ToolCall("call_0_0", "look_up", '{"word":"lamp"}'),))
    following = tree.prompt([*asked.messages, again, ChatMessage("tool", "a lamp")], asked.tools)
    assert following.follows == 0
    assert following.num_known == len(prompt.token_ids) + len(response.completion.token_ids)


def test_calls_that_cannot_be_read_stay_text_and_other_templates_are_refused(tool_chat: ChatFormat, chat: ChatFormat):
    asked = read_request(request(user("a")) | {"tools": TOOLS})
    for said in ("<tool_call>{broken</tool_call>", '<tool_call>{"name": 3}</tool_call>', "<tool_call>{}"):
        response = read_response(tool_chat, completion(tool_chat, said), asked, "")
        assert response.message.tool_calls == ()
        assert response.message.content == said
    check_tools(tool_chat)
    with pytest.raises(ChatError, match="does not tell of tools"):
        check_tools(chat)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
        ({"model": None}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"n": True}, "n"),
        ({"stream": 1}, "stream"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"guided_json": {}}, "guided_json"),
    ],
)
def test_a_field_that_cannot_be_followed_is_named(change: dict[str, Any], param: str):
    with pytest.raises(ChatError) as refused:
        read_request(request(user("a")) | change)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_parts_and_bookkeeping_are_taken():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    read = read_request(
        {"model": "policy", "messages": [{"role": "developer", "content": parts}], "user": "me", "n": 1, "store": False}
    )
    assert read.messages == (ChatMessage("system", "a\nb"),)
