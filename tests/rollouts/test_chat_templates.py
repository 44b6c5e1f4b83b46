"""The matrix of chat templates: what a rollout shows is what `apply_chat_template` gives, whatever the family does."""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env_wrappers.prompting import wrap
from env_wrappers.prompting.parsing import parse_action
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.agents import EnginePolicyAgent
from proxmo_rllib.rollouts.chat_template import TODAY
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.env_pool import EnvPool
from proxmo_rllib.rollouts.play import play_groups
from proxmo_rllib.types import Assignment, Completion, SamplingParams
from tests.rollouts.chat_families import APPENDED, FAMILIES, OWN_SEQUENCE, build_tokenizer, tokenizer_for

OBSERVATIONS = ["You see a bed 1.\n\nIt is dark.", "  a mug 1 ", "Nothing happens.\n", "x"]
DAYS = ("2031-02-03", "2032-03-04")
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


def play(
    chat: ChatFormat, kwargs: Mapping[str, Any], *, think: bool, system: str | None = None, merges: bool = False
) -> set[str]:
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


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_message_stands_where_the_template_puts_it_or_is_refused_with_the_remedy(name: str):
    family = FAMILIES[name]
    if family.system == "refused":
        with pytest.raises(ValueError, match=r"knows no system message: set system_message=None"):
            chat_of(name, "Be brief.")
        return
    for think in (False, True):
        play(chat_of(name, "Be brief."), family.kwargs, think=think, system="Be brief.")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_prompt_opened_is_known_and_the_parser_is_told(name: str):
    """A reply that a model of the family would sample is a valid one, in both styles, with a thought and without."""
    chat = chat_of(name)
    assert chat.opened == FAMILIES[name].opens
    ids = chat.prompt([chat.user_message("x")])
    opening = chat.reply_opening.replace("\n", "") if FAMILIES[name].strips else chat.reply_opening
    assert chat.tokenizer.decode(ids).endswith(opening)
    assert chat.reply_opening.endswith(chat.opened)

    def read(answer: str, thought: str | None) -> str:
        return chat.read(chat.decode_response(chat.demonstrate(answer, thought)[0]))

    for thought in ("", "I must find a mug."):
        said = read("<action>take mug 1</action>", thought)
        assert parse_action(said, "tagged") == "take mug 1"
        assert thought in said
        assert parse_action(read("take mug 1", thought), "bare") == "take mug 1"
    assert parse_action(read("take mug 1", None), "bare") == "take mug 1"


@pytest.mark.parametrize("name", ["Qwen 3.5", "DeepSeek-R1 distills", "gpt-oss"])
def test_a_reply_that_was_cut_off_while_it_thought_holds_no_action(name: str):
    chat = chat_of(name)
    begun = "<|channel|>analysis<|message|>" if name == "gpt-oss" else ""
    said = chat.read(f"{begun}take mug 1? <action>take mug 1</action>")
    assert parse_action(said, "tagged") is None
    assert parse_action(said, "bare") is None


def test_gpt_oss_goes_on_after_its_analysis_and_is_read_in_its_final_channel():
    chat = chat_of("gpt-oss")
    ids = chat.tokenizer.convert_tokens_to_ids(["<|end|>", "<|return|>"])
    assert ids[0] not in chat.stop_token_ids
    assert ids[1] == chat.stop_token_ids[0]
    sampled = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>go to sink 2<|return|>"
    )
    reply = np.asarray(chat.tokenizer(sampled, add_special_tokens=False)["input_ids"], np.int32)
    assert chat.read(chat.decode_response(reply)) == "<think>Hm.</think>go to sink 2"
    demonstrated, thinking = chat.demonstrate("go to sink 2", "Hm.")
    assert demonstrated.tolist() == reply.tolist()
    assert chat.tokenizer.decode(demonstrated[thinking:]) == "<|channel|>final<|message|>go to sink 2<|return|>"


@pytest.mark.parametrize("name", FAMILIES)
def test_markup_in_an_observation_is_text(name: str):
    """Every added token, special or not, in a first prompt, in a later one and in one that is rewritten."""
    family, chat = FAMILIES[name], chat_of(name)
    tokens = [token for token in (*family.special, *family.markup) if not set(token) <= set("\n▁")]
    markup = set(chat.tokenizer.convert_tokens_to_ids(tokens))
    told = f"a note: {''.join(tokens)} {' '.join(tokens)} \ufdd0 end"
    for think in (False, True):
        shown, plain = (Conversation(chat, append=True) for _ in range(2))
        for _ in range(3):
            for conversation, text in ((shown, told), (plain, "a note: x end")):
                conversation.say(text)
            assert [i for i in shown.token_ids if i in markup] == [i for i in plain.token_ids if i in markup]
            assert told in chat.tokenizer.decode(shown.token_ids)
            for conversation in (shown, plain):
                conversation.reply(chat.demonstrate("look", "Hm." if think else None)[0])


def test_the_tags_in_our_own_instructions_are_the_tokens_that_the_model_knows(obedient_env: Any):
    chat = chat_of("Qwen 3")
    message, _ = wrap(obedient_env(), style="tagged").reset(seed=0)
    assert chat.prompt([chat.user_message(message)]) == rendered(chat, [{"role": "user", "content": message}], {})
    thought = chat.tokenizer.convert_tokens_to_ids("<think>")
    assert chat.prompt([chat.user_message(f"{message} <think>")]).count(thought) == 1


@pytest.mark.parametrize("name", ["Gemma 2", "Llama 2", "Mistral 7B", "Qwen 3"])
def test_text_with_markup_has_the_same_tokens_around_it(name: str):
    """No space mark comes in where markup was taken for text, and runs of blanks stay the tokens that they are."""
    chat = chat_of(name)
    before, after = "You see a bed 1.\n\nIt is", "dark.  It is"
    plain = chat.encode_text(before)
    assert chat.encode_text(f"{before} </s><eos><think> {after}")[: len(plain) - 1] == plain[:-1]
    assert chat.tokenizer.decode(chat.encode_text(f"</s><eos>{after}")).lstrip() == f"</s><eos>{after}"
    if name == "Gemma 2":
        blanks = chat.tokenizer.convert_tokens_to_ids("\n\n")
        assert chat.encode_text(f"{before} <eos> {before}").count(blanks) == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_the_same_on_every_day(name: str):
    """The clock is never asked: a run that is resumed has the prompts that it had."""
    family = FAMILIES[name]
    tokenizer = tokenizer_for(family)
    chats = [ChatFormat.from_tokenizer(tokenizer, template_kwargs=family.kwargs, today=day) for day in DAYS]
    first, other = (chat.prompt([chat.user_message("x")]) for chat in chats)
    assert (first != other) == family.dated == chats[0].prints_the_date
    if family.dated:
        assert "2031" in tokenizer.decode(first)


def test_a_variable_that_the_template_does_not_read_is_an_error():
    tokenizer = tokenizer_for(FAMILIES["Qwen 3"])
    with pytest.raises(ValueError, match=r"chat_template_kwargs=.*reads no variable 'enable_thoughts'"):
        ChatFormat.from_tokenizer(tokenizer, template_kwargs={"enable_thoughts": False})


def test_a_system_message_that_a_template_leaves_out_is_an_error():
    tokenizer = build_tokenizer(
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content + '<eos>' }}{% endif %}{% endfor %}",
        "byte level",
        ("<eos>",),
    )
    with pytest.raises(ValueError, match=r"system_message='Be brief.'.*leaves it out; set system_message=None"):
        ChatFormat.from_tokenizer(tokenizer, "Be brief.")


def test_a_window_is_a_prompt_of_its_own_in_every_family():
    for name in FAMILIES:
        chat = chat_of(name)
        conversation = Conversation(chat, append=False)
        for observation in OBSERVATIONS:
            context, appended = conversation.say(observation)
            assert not appended
            expected = rendered(chat, [{"role": "user", "content": observation}], FAMILIES[name].kwargs)
            assert context.tolist() == expected, name
            conversation.reply(chat.demonstrate("look", "Hm.")[0])


@pytest.mark.parametrize("name", ["Qwen 2.5", "Qwen 3.5", "gpt-oss"])
def test_an_episode_is_learnt_from_in_the_contexts_that_its_turns_had(name: str, obedient_env: Any):
    """One sequence, or one a turn; the sampled ids stand in it, behind the prompt that they were sampled for."""
    chat = chat_of(name)
    prompts, responses = [], []

    class Client:
        async def generate(self, prompt_ids: list[int], params: SamplingParams, affinity: int = 0) -> Completion:
            action = "go" if len(prompts) < 2 else "win"
            ids, _ = chat.demonstrate(f"<action>{action}</action>", "Hm.")
            prompts.append(list(prompt_ids))
            responses.append(ids.tolist())
            return Completion(ids, np.zeros(len(ids), np.float32), "stop", 0)

    params = SamplingParams(1.0, 64, chat.stop_token_ids)
    pool = EnvPool(lambda: wrap(obedient_env(), style="tagged"), 1)
    limits = {"append": True, "max_turns": 9, "max_prompt_tokens": 10_000}
    result = asyncio.run(
        play_groups(
            pool,
            [Assignment("g", "train-0", 0, 1)],
            lambda assignment, index: EnginePolicyAgent(Client(), params, 0),
            chat,
            **limits,
        )
    )
    (episode,) = result.groups[0].episodes
    assert episode.success
    assert [turn.action for turn in episode.turns] == ["go", "go", "win"]
    assert all(turn.action_valid for turn in episode.turns)
    sequences = list(episode.sequences())
    assert len(sequences) == (1 if name == "Qwen 2.5" else 3)
    for sequence in sequences:
        for turn, (start, stop) in zip(sequence.turns, sequence.spans, strict=True):
            assert sequence.token_ids[:start].tolist() == prompts[turn]
            assert sequence.token_ids[start:stop].tolist() == responses[turn]


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
    variants: list[dict[str, Any]] = [{}]
    if "enable_thinking" in source:
        variants += [{"enable_thinking": False}, {"enable_thinking": True}]
    for kwargs in variants:
        chat = ChatFormat.from_tokenizer(tokenizer, template_kwargs=kwargs)
        for think in (False, True):
            play(chat, kwargs, think=think, merges=name in MERGING)


def test_a_folder_with_a_tekken_file_is_read_by_its_own_tokenizer(tiny_policy: Path, tmp_path: Path):
    """transformers takes Mistral's backend for such a folder where mistral-common is installed; it has no template."""
    (tekken, *_) = Path(str(importlib.resources.files("mistral_common"))).rglob("tekken*.json")  # comes with vLLM
    folder = shutil.copytree(tiny_policy, tmp_path / "mistral")
    shutil.copy(tekken, folder / "tekken.json")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral"}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "LlamaTokenizerFast"}))
    ChatFormat.from_tokenizer(load_tokenizer(folder))


def test_a_tokenizer_that_cannot_tell_data_from_markup_is_refused():
    tokenizer = tokenizer_for(FAMILIES["Qwen 3"])

    class Slow:
        is_fast, name_or_path = False, "some/model"
        chat_template, get_chat_template = tokenizer.chat_template, tokenizer.get_chat_template

    with pytest.raises(ValueError, match=r"some/model.*tokenizer\.json"):
        ChatFormat.from_tokenizer(Slow())


def docs_row(name: str) -> str:
    """What was seen of a family, as a row of the documentation's table."""
    family, chat = FAMILIES[name], chat_of(name)
    outcomes = [" and ".join(sorted(play(chat, family.kwargs, think=think))) for think in (False, True)]
    opens = f"`{chat.opened}`".replace("\n", "⏎") if chat.opened else ""
    stop: str = chat.tokenizer.convert_ids_to_tokens(chat.stop_token_ids[0])
    system = {"kept": "", "moved": "inside another message", "refused": "refused"}[family.system]
    dated = "yes" if chat.prints_the_date else ""
    cells = [name, *outcomes, opens, f"`{stop}`", system, dated]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def test_the_documentation_has_the_matrix(repository: Path):
    text = (repository / "docs" / "chat_templates.md").read_text()
    _, table = text.split("\n|---|---|---|---|---|---|---|\n")
    rows = "\n".join(docs_row(name) for name in FAMILIES)
    assert table.startswith(f"{rows}\n\n"), f"the table is:\n{rows}"
