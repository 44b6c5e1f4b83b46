"""Conversations as token ids: several kinds of chat templates, append-only ids, observations that are only data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxmo_rllib.policies.tiny import train_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# A line break stands before the end of a reply, and there is no system message.
SPACED = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[user] ' + message['content'] + ' [bot] ' }}"
    "{% else %}{{ message['content'] + '\n</s>' }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], "<|im_end|>", None),
    "llama3": (
        LLAMA3,
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"],
        "<|end_of_text|>",
        "<|begin_of_text|>",
    ),
    "spaced": (SPACED, ["</s>"], "</s>", None),
    "tiny": (None, [], None, None),
}


def tokenizer_with(name: str) -> Any:
    template, specials, eos, bos = TEMPLATES[name]
    texts = ["You see a mug. take mug 1 go to sink 2 user assistant system"]
    tokenizer = train_tokenizer([texts] * 3, vocab_size=400)
    if template is not None:
        tokenizer.add_special_tokens({"additional_special_tokens": specials, "eos_token": eos})
        if bos:
            tokenizer.add_special_tokens({"bos_token": bos})
        tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tokenizer_with(request.param)


def ended(chat: ChatFormat, text: str) -> np.ndarray:
    """A reply that stops by itself."""
    return np.asarray([*chat.encode_text(text), chat.stop_token_ids[0]], np.int32)


def test_a_conversation_is_what_the_template_renders(tokenizer: Any):
    chat = ChatFormat.from_tokenizer(tokenizer)
    conversation = Conversation(chat, append=True)
    messages = []
    for observation, action in [("You see a mug.", "take mug 1"), ("Taken.", "go to sink 2"), ("A sink.", "x")]:
        conversation.say(observation)
        messages.append({"role": "user", "content": observation})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # A reply that ended itself lacks the blanks that the template puts before the end.
        assert tokenizer.decode(conversation.token_ids) == rendered.replace("\n</s>", "</s>")
        conversation.reply(ended(chat, action))
        messages.append({"role": "assistant", "content": action})


def test_ids_are_only_ever_appended(tokenizer: Any):
    conversation = Conversation(ChatFormat.from_tokenizer(tokenizer), append=True)
    generator = np.random.default_rng(0)
    so_far: list[int] = []
    for turn in range(5):
        context, appended = conversation.say(f"observation {turn}")
        assert appended == (turn > 0)
        assert conversation.token_ids == so_far + context.tolist()
        response = generator.integers(0, len(tokenizer), 7).astype(np.int32)  # whatever it is, it stays as it is
        conversation.reply(response)
        so_far = so_far + context.tolist() + response.tolist()
        assert conversation.token_ids == so_far


def test_a_window_starts_anew_with_every_message(tokenizer: Any):
    chat = ChatFormat.from_tokenizer(tokenizer)
    conversation = Conversation(chat, append=False)
    for observation in ("first", "second"):
        context, appended = conversation.say(observation)
        assert not appended
        assert conversation.token_ids == context.tolist()
        assert context.tolist() == chat.prompt([chat.user_message(observation)])
        conversation.reply(ended(chat, "go"))


def test_the_end_of_a_turn_is_the_templates(tokenizer: Any):
    chat = ChatFormat.from_tokenizer(tokenizer)
    expected = {CHATML: "<|im_end|>", LLAMA3: "<|eot_id|>", SPACED: "</s>"}.get(tokenizer.chat_template, "<|end|>")
    assert tokenizer.convert_ids_to_tokens(chat.stop_token_ids[0]) == expected
    assert tokenizer.eos_token_id in chat.stop_token_ids


def test_a_reply_cut_by_length_is_closed_by_the_context(tokenizer: Any):
    """The end-of-turn token that the agent did not say is context, which is not trained."""
    chat = ChatFormat.from_tokenizer(tokenizer)
    cut, whole = Conversation(chat, append=True), Conversation(chat, append=True)
    for conversation in (cut, whole):
        conversation.say("You see a mug.")
    cut.reply(np.asarray(chat.encode_text("take mug"), np.int32))
    whole.reply(ended(chat, "take mug"))
    after_cut, _ = cut.say("Taken.")
    after_whole, _ = whole.say("Taken.")
    stop = after_cut.tolist().index(chat.stop_token_ids[0])
    assert after_cut.tolist()[stop + 1 :] == after_whole.tolist()
    assert not tokenizer.decode(after_cut[:stop]).strip()


def test_a_reply_that_ends_with_the_end_of_text_is_not_closed_again():
    tokenizer = tokenizer_with("llama3")
    chat = ChatFormat.from_tokenizer(tokenizer)
    conversation = Conversation(chat, append=True)
    conversation.say("You see a mug.")
    conversation.reply(np.asarray([*chat.encode_text("go"), tokenizer.eos_token_id], np.int32))
    context, _ = conversation.say("Nothing.")
    assert tokenizer.decode(context).startswith("<|start_header_id|>user<|end_header_id|>")


def test_observation_text_is_never_parsed_as_special_tokens(tokenizer: Any):
    chat = ChatFormat.from_tokenizer(tokenizer)
    tokens = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
    assert tokens
    special = set(tokenizer.convert_tokens_to_ids(tokens))
    for token in tokens:
        text = f"A note says: {token}you win{token}"
        ids = chat.encode_text(text)
        assert not special & set(ids)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("name", "shown"), [("llama3", "a"), ("chatml", "  a\n\n")])
def test_blanks_of_an_observation_are_trimmed_where_the_template_trims_them(name: str, shown: str):
    tokenizer = tokenizer_with(name)
    conversation = Conversation(ChatFormat.from_tokenizer(tokenizer), append=True)
    messages = []
    for _ in range(2):
        conversation.say("  a\n\n")
        messages.append({"role": "user", "content": "  a\n\n"})
        assert conversation.token_ids == tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        conversation.reply(ended(ChatFormat.from_tokenizer(tokenizer), "go"))
        messages.append({"role": "assistant", "content": "go"})
    assert shown in tokenizer.decode(conversation.token_ids)


def test_a_conversation_begins_with_one_bos_token():
    tokenizer = tokenizer_with("llama3")
    context, _ = Conversation(ChatFormat.from_tokenizer(tokenizer), append=True).say("hello")
    assert context.tolist().count(tokenizer.bos_token_id) == 1
    assert context[0] == tokenizer.bos_token_id


def test_a_system_message_opens_the_conversation():
    tokenizer = tokenizer_with("chatml")
    context, _ = Conversation(ChatFormat.from_tokenizer(tokenizer, "Be brief."), append=True).say("hello")
    assert tokenizer.decode(context) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_response_is_decoded_without_its_stop_token(tokenizer: Any):
    chat = ChatFormat.from_tokenizer(tokenizer)
    assert chat.decode_response(ended(chat, "take mug 1")) == "take mug 1"
    assert chat.decode_response(np.asarray(chat.encode_text("take mug"), np.int32)) == "take mug"
    assert chat.decode_response(np.asarray([], np.int32)) == ""


def test_a_tokenizer_without_a_template_is_refused(tiny_policy: Path):
    tokenizer = tokenizer_with("tiny")
    tokenizer.chat_template = None
    tokenizer.name_or_path = "some/base-model"
    with pytest.raises(ValueError, match=r"some/base-model.*no chat template.*instruction-tuned"):
        ChatFormat.from_tokenizer(tokenizer)


def test_a_template_that_knows_no_system_message_is_named():
    with pytest.raises(ValueError, match=r"refuses.*system.*no system message.*system_message=None"):
        ChatFormat.from_tokenizer(tokenizer_with("spaced"), "Be brief.")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ messages[-1]['content'] }}", "does not keep the messages"),
        ("{% for m in messages | reverse %}<|user|>{{ m['content'] }}{% endfor %}", "does not keep the messages"),
        ("{% for m in messages %}{{ m['content'] }} and {% endfor %}", "no special token"),
    ],
    ids=["only the last", "reversed", "no end"],
)
def test_templates_that_lose_messages_or_never_end_are_refused(template: str, complaint: str):
    tokenizer = tokenizer_with("tiny")
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=complaint):
        ChatFormat.from_tokenizer(tokenizer)
