"""An environment may return anything: it is in its exact form afterwards, or refused as a `ContractError`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from env_wrappers.contract import ContractError, KeptContract, read_tasks, whole_text
from env_wrappers.core import AnyText
from env_wrappers.prompting import wrap
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from tests.fuzz.inputs import JSON, WORDS, fuzz, outcome


class Unspeakable:
    """Raises whenever it is asked anything."""

    def _raise(self, *arguments: Any, **keywords: Any) -> Any:
        raise OSError("no words")

    __repr__ = __str__ = __float__ = __bool__ = __len__ = __iter__ = __eq__ = __getattr__ = _raise  # type: ignore
    __hash__ = None  # type: ignore[assignment]


ARRAYS = st.sampled_from(
    [
        np.bool_(True), np.int64(1), np.float32("nan"), np.str_("word"), np.array([True]), np.array(0.5), np.eye(2),
        np.array(["go"]), np.array([], dtype=object), torch.tensor(True), torch.zeros(3), torch.tensor([math.inf]),
    ]
)  # fmt: skip
FOREIGN = (
    JSON | ARRAYS | st.binary(max_size=5) | st.sampled_from([Unspeakable(), object(), int, ..., 1j, {1, "a"}, (1, 2)])
)
INFOS = st.fixed_dictionaries(
    {},
    optional={
        "success": st.booleans() | FOREIGN,
        "admissible_actions": st.lists(WORDS, max_size=4) | st.lists(FOREIGN, max_size=3) | FOREIGN,
        "score": st.floats() | FOREIGN,
        "task": WORDS | FOREIGN,
        "task_type": WORDS | FOREIGN,
        "goal": WORDS | FOREIGN,
        "other": FOREIGN,
    },
)
MOSTLY_RIGHT = st.fixed_dictionaries({"success": st.booleans()}, optional={"goal": WORDS, "score": st.floats(-1, 1)})
STEPS = st.tuples(
    WORDS | FOREIGN,
    st.floats(-1, 1) | FOREIGN,
    st.booleans() | FOREIGN,
    st.booleans() | FOREIGN,
    INFOS | MOSTLY_RIGHT | FOREIGN,
)
RIGHT_STEPS = st.tuples(WORDS, st.floats(-1, 1), st.booleans(), st.booleans(), MOSTLY_RIGHT | INFOS)


class Foreign(gymnasium.Env[Any, Any]):
    """Returns what it was given."""

    metadata = {"render_modes": []}

    def __init__(self, reset: Any, step: Any) -> None:
        self.observation_space = self.action_space = AnyText()
        self.returned = {"reset": reset, "step": step}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.returned["reset"]

    def step(self, action: Any) -> Any:
        return self.returned["step"]


def assert_exact(info: dict[str, Any]) -> None:
    assert type(info["success"]) is bool
    assert all(type(action) is str and action.encode() is not None for action in info.get("admissible_actions", []))
    assert "score" not in info or (type(info["score"]) is float and math.isfinite(info["score"]))
    for key in ("task", "task_type", "goal"):
        assert key not in info or type(info[key]) is str


@fuzz
@given(
    reset=st.tuples(WORDS | FOREIGN, INFOS | MOSTLY_RIGHT | FOREIGN) | FOREIGN,
    step=STEPS | RIGHT_STEPS | FOREIGN,
    action=WORDS,
)
def test_what_comes_out_is_exact_or_refused(reset: Any, step: Any, action: str) -> None:
    env = KeptContract(Foreign(reset, step))
    found, refusal = outcome(env.reset, ContractError)
    if refusal is None:
        observation, info = found
        assert (type(observation), observation.encode() is None) == (str, False)
        assert_exact(info)
    else:
        assert "Foreign, reset" in refusal
    found, refusal = outcome(lambda: env.step(action), ContractError)
    if refusal is None:
        observation, reward, terminated, truncated, info = found
        assert observation.encode() is not None
        assert (type(observation), type(reward), type(terminated), type(truncated)) == (str, float, bool, bool)
        assert math.isfinite(reward)
        assert_exact(info)
    else:
        assert "Foreign, step" in refusal


@pytest.fixture(scope="module")
def chat(tiny_policy: Path) -> ChatFormat:
    return ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))


@fuzz
@given(
    texts=st.lists(WORDS | st.text(max_size=60), min_size=2, max_size=4),
    goal=WORDS,
    actions=st.lists(WORDS, max_size=3),
    response=WORDS.map(whole_text),
    template=st.sampled_from(["bare", "instructed"]),
    history=st.sampled_from([None, 0, 2]),
    style=st.sampled_from(["bare", "tagged"]),
)
def test_any_observation_becomes_a_prompt_in_which_it_is_text(
    chat: ChatFormat, texts: list[str], goal: str, actions: list[str], response: str, template: str, history: Any,
    style: str,
) -> None:  # fmt: skip
    info = {"success": False, "goal": goal, "admissible_actions": actions}
    foreign = Foreign((texts[0], info), (texts[1], 0.0, False, False, info))
    env = wrap(KeptContract(foreign), template=template, style=style, history=history, show_admissible=True)
    conversation = Conversation(chat, append=history is None)
    plain = Conversation(chat, append=history is None)
    special = set(chat.tokenizer.all_special_ids)

    def marks(ids: Any) -> list[int]:
        return [id_ for id_ in ids.tolist() if id_ in special]

    message, _ = env.reset()
    for text in texts[1:]:
        ids, _ = conversation.say(message)
        assert marks(ids) == marks(plain.say("plain words")[0]), "what looks like markup is text"
        plain.reply(np.array([], np.int32))
        conversation.reply(np.array([*chat.encode_text(response)], np.int32))
        foreign.returned["step"] = (text, 0.0, False, False, info)
        message = env.step(response)[0]
        assert message.encode() is not None


@fuzz
@given(tasks=st.lists(WORDS, max_size=3) | st.lists(FOREIGN, max_size=3) | FOREIGN)
def test_task_ids_are_words_or_refused(tasks: Any) -> None:
    said: list[str] = []
    ids = read_tasks(tasks, lambda *words: said.append(" ".join(words)))
    assert (ids is None) == bool(said)
    assert ids is None or all(type(id_) is str and id_ for id_ in ids)
