"""The matrix of chat templates: what a rollout shows is what `apply_chat_template` gives, whatever the family does."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env_wrappers.prompting.parsing import parse_action
from proxmo_rllib.rollouts.chat_template import TODAY
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from tests.rollouts.chat_families import APPENDED, FAMILIES, OWN_SEQUENCE, build_tokenizer, tokenizer_for

OBSERVATIONS = ["You see a bed 1.\n\nIt is dark.", "  a mug 1 ", "Nothing happens.\n", "x"]
REPLIES = [("go to sink 2", "I must find a mug."), ("take mug 1", "There it is."), ("look", "What now?")]


@functools.cache
def chat_of(name: str, system: str | None = None) -> ChatFormat:
    family = FAMILIES[name]
    return ChatFormat.from_tokenizer(tokenizer_for(family), system, template_kwargs=family.kwargs)


def rendered(chat: ChatFormat, messages: list[dict[str, str]], kwargs: Mapping[str, Any]) -> list[int]:
    day = date.fromisoformat(TODAY)
    return chat.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, strftime_now=day.strftime, **kwargs
    )


def served(chat: ChatFormat, ids: np.ndarray) -> dict[str, str]:
    """The reply as whoever serves the model puts it into the next request."""
    text = chat.decode_response(ids)
    if chat.thoughts.in_fields:
        thought, answer = chat.thoughts.split(text)
        return {"role": "assistant", "content": answer or ""} | ({} if thought is None else {"thinking": thought})
    begun = chat.opened if chat.thoughts.closing not in chat.opened else ""
    return {"role": "assistant", "content": begun + text}


def play(chat: ChatFormat, kwargs: Mapping[str, Any], *, think: bool, system: str | None = None, merges: bool = False) -> set[str]:
    """Plays a conversation, compares every prompt with the template's, and says what became of its turns.

    Where sampled replies `merges` with what stands before them, their ids stay, and the texts are compared.
    """
    same = chat.tokenizer.decode if merges else list
    conversation = Conversation(chat, append=True)
    messages = [{"role": "system", "content": system}] if system else []
    outcomes = []
    for observation, (action, thought) in zip(OBSERVATIONS, [*REPLIES, ("", "")], strict=True):
        before = list(conversation.token_ids)
        context, appended = conversation.say(observation)
        messages.append({"role": "user", "content": observation})
        assert same(conversation.token_ids) == same(rendered(chat, messages, kwargs))
        assert conversation.token_ids == [*(before if appended else []), *context.tolist()]
        outcomes.append(APPENDED if appended else OWN_SEQUENCE)
        ids, _ = chat.demonstrate(action, thought if think else None)
        assert ids[-1] == chat.stop_token_ids[0]
        conversation.reply(ids)
        messages.append(served(chat, ids))
    return set(outcomes[1:])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_has_the_ids_of_the_template(name: str):
    assert play(chat_of(name), FAMILIES[name].kwargs, think=False) == {FAMILIES[name].replies}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_with_thoughts_has_the_ids_of_the_template(name: str):
    assert play(chat_of(name), FAMILIES[name].kwargs, think=True) == {FAMILIES[name].thoughts}


def installed_templates() -> Iterator[tuple[str, Path]]:
    """Those that installed packages ship: vLLM's folder, and TRL's where it is installed."""
    for package, folder in (("vllm", "transformers_utils/chat_templates"), ("trl", "chat_templates")):
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations or []) if found else []:
            for path in sorted((Path(place) / folder).glob("*.jinja")):
                yield f"{package}/{path.stem}", path


INSTALLED = dict(installed_templates())
_MARKUP = re.compile(r"<\|[^|<>\s]+\|>|</?[|a-z_]+>|<｜[^｜]+｜>|\[/?[A-Z_]+\]")
#: What cannot be played, and the words that say why.
REFUSED = {
    "vllm/template_basic": "no special token",
    "vllm/template_blip2": "no special token",
    "vllm/template_deepseek_ocr": "no special token",
    "vllm/template_kimi_audio": "does not keep the messages",
    # They want contents in parts, of text and images.
    **dict.fromkeys(
        [f"trl/{name}{kind}" for name in ("idefics3", "llava_next", "smolvlm") for kind in ("", "_training")],
        "does not keep the messages",
    ),
}
#: A prompt ends in a blank, which merges with the first word of the reply once both are encoded again.
MERGING = {"vllm/template_deepseek_vl2"}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_template_that_a_package_ships_is_followed_or_refused_in_words(name: str):
    source = INSTALLED[name].read_text()
    tokens = tuple(dict.fromkeys(_MARKUP.findall(source)))
    special = tuple(token for token in tokens if not re.search("think|tool|function|parameter", token))
    markup = tuple(token for token in tokens if token not in special)
    tokenizer = build_tokenizer(source, "byte level", ("<|end-of-all|>", "<|begin-of-all|>", *special), markup)
    tokenizer.bos_token = "<|begin-of-all|>"
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            ChatFormat.from_tokenizer(tokenizer)
        return
    chat = ChatFormat.from_tokenizer(tokenizer)
    for think in (False, True):
        play(chat, {}, think=think, merges=name in MERGING)
