"""Prompts, parsing, history and the price of invalid actions, on an environment that echoes."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import pytest

from env_wrappers.core import AnyText, is_admissible
from env_wrappers.prompting import TEMPLATES, ActionParsing, InvalidActionPenalty, Prompting, wrap
from env_wrappers.prompting.parsing import MAX_UNPARSED, parse_action


class Echo(gymnasium.Env[str, str]):
    """Says what it got. Not derived from the package's base class, as a user's own would not be."""

    observation_space = AnyText()
    action_space = AnyText()

    def __init__(self, admissible: tuple[str, ...] = ("help", "left", "right")) -> None:
        self.admissible = admissible

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return "A fork {in} the road.", self.info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return f"[{self.turn}] got {action!r}", 1.0, False, False, self.info() | {"success": True, "score": 0.5}

    def info(self) -> dict[str, Any]:
        return {"admissible_actions": list(self.admissible), "goal": "find {water}", "success": False}


TAGGED = "<think>hm</think><action>{}</action>"


@pytest.mark.parametrize(
    ("response", "action"),
    [
        ("<think>a</think><action>go left</action>", "go left"),
        ("<think>a\nb</think>\n<action>\n go left \n</action>\n", "go left"),
        ("<think>I could say <action>x</action></think><action>go left</action>", "go left"),
        ("<think></think><action>one</action><action>two</action> and more", "two"),
        ("<action>go left</action>", None),
        ("<action>go left</action><think>late</think>", None),
        ("<think>a</think>go left", None),
        ("<think>a<action>go left</action>", None),
        ("<think>a</think><action>  </action>", None),
        ("<think>a</think><action>go left", None),
        ("", None),
        ("</action><action></think><think>", None),
    ],
)
def test_tagged_responses(response: str, action: str | None) -> None:
    assert parse_action(response, "tagged") == action


def test_the_parser_is_quick_on_hostile_responses() -> None:
    parse_action("<think>" * 20_000 + "<action>" * 20_000, "tagged")
    parse_action("<action></action>" * 20_000, "tagged")
    parse_action("<think> </think> " * 20_000, "bare")


def test_bare_responses_are_the_action_itself() -> None:
    assert parse_action("  go left \n", "bare") == "go left"
    assert parse_action(" \n", "bare") is None


@pytest.mark.parametrize(
    ("response", "action"),
    [
        ("<think>Which way?\n</think>\n\ngo left", "go left"),
        (" <think>\n\n</think>\n\n<think>Which way?</think>go left", "go left"),
        ("<think>Which way? go left", None),
        ("<think>Which way?</think> ", None),
        ("say <think> twice", "say <think> twice"),
    ],
)
def test_the_action_of_a_bare_response_is_what_follows_its_thought(response: str, action: str | None) -> None:
    assert parse_action(response, "bare") == action


def test_validity_is_format_and_admissibility() -> None:
    env = ActionParsing(Echo())
    env.reset()
    for response, action, valid in (
        (TAGGED.format("left"), "left", True),
        (TAGGED.format("up"), "up", False),
        ("left", "left", False),
        (" " + "y" * 1000, "y" * MAX_UNPARSED, False),
    ):
        observation, _, _, _, info = env.step(response)
        assert (info["action"], info["action_valid"]) == (action, valid)
        assert repr(action) in observation


def test_without_a_list_of_actions_the_format_alone_decides() -> None:
    env = ActionParsing(Echo(admissible=()), style="bare")
    env.reset()
    assert env.step("anything at all")[4]["action_valid"]
    assert not env.step("  ")[4]["action_valid"]


def test_a_placeholder_stands_for_free_text() -> None:
    admissible = ["back", "search[<query>]"]
    assert is_admissible("back", admissible)
    assert is_admissible("search[red <b> shoes]", admissible)
    assert not is_admissible("search[]", admissible)
    assert not is_admissible("search[ ]", admissible)
    assert not is_admissible("search", admissible)
    assert not is_admissible("click[red]", admissible)


def test_a_penalty_changes_the_reward_and_nothing_else() -> None:
    env, plain = InvalidActionPenalty(ActionParsing(Echo()), 0.25), ActionParsing(Echo())
    env.reset()
    plain.reset()
    for response in (TAGGED.format("left"), "nonsense"):
        observation, reward, *ends, info = env.step(response)
        expected = plain.step(response)
        assert reward == expected[1] - (0.25 if response == "nonsense" else 0)
        assert (observation, *ends, info) == (expected[0], *expected[2:])
        assert info["success"] is True
        assert info["score"] == 0.5


def test_a_conversation_is_instructed_once() -> None:
    env = wrap(Echo(), template="instructed", history=None)
    first, info = env.reset()
    assert "find {water}" in first
    assert "<think>" in first
    assert "A fork {in} the road." in first
    assert "left" not in first
    assert info["anchor"] == "A fork {in} the road."
    second, _, _, _, info = env.step(TAGGED.format("left"))
    assert second == info["anchor"] == "[1] got 'left'"


def test_the_bare_template_adds_nothing_to_a_conversation() -> None:
    env = wrap(Echo(), style="bare", template="bare")
    assert env.reset()[0] == "A fork {in} the road."
    assert env.step("left")[0] == "[1] got 'left'"


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_window_shows_the_goal_the_last_turns_and_the_present(template: str) -> None:
    env = wrap(Echo(), template=template, history=2)
    env.reset()
    for number in range(1, 5):
        prompt, _, _, _, info = env.step(TAGGED.format(f"walk{number}"))
        assert info["anchor"] == f"[{number}] got 'walk{number}'"
    assert "find {water}" in prompt
    assert "[1]" not in prompt
    parts = ("[2] got 'walk2'\n", " walk3\n", "[3] got 'walk3'\n", " walk4\n", "[4] got 'walk4'")
    positions = [prompt.index(part) for part in parts]
    assert positions == sorted(positions)
    assert prompt.endswith("[4] got 'walk4'")
    assert "<think>hm" not in prompt, "the history holds actions, not responses"


def test_a_window_of_nothing_shows_only_the_present() -> None:
    env = wrap(Echo(), style="bare", template="bare", history=0)
    env.reset()
    assert env.step("left")[0] == "Task: find {water}\n\n[1] got 'left'"


def test_a_new_episode_forgets_the_last() -> None:
    env = wrap(Echo(), history=3)
    first = env.reset()
    env.step("x")
    assert env.reset() == first


@pytest.mark.parametrize("history", [None, 1])
def test_admissible_actions_are_listed_on_every_turn_without_help(history: int | None) -> None:
    env = wrap(Echo(), style="bare", template="bare", history=history, show_admissible=True)
    for message in (env.reset()[0], env.step("left")[0]):
        assert message.endswith("Actions:\nleft\nright")


def test_instructions_name_the_format_that_is_parsed() -> None:
    assert "<action>" in wrap(Echo(), style="tagged").reset()[0]
    assert "<action>" not in wrap(Echo(), style="bare").reset()[0]


def test_a_wrapped_environment_can_be_pickled_in_the_middle_of_an_episode() -> None:
    made = gymnasium.make("env_wrappers/ALFWorld-v0", rooms=("bathroom",), max_receptacles=4, max_objects=3)
    env = wrap(made, history=2, show_admissible=True, invalid_action_penalty=0.1)
    env.reset(seed=0)
    env.step(TAGGED.format("look"))
    twin = pickle.loads(pickle.dumps(env))
    for response in (TAGGED.format("inventory"), "nonsense"):
        assert twin.step(response) == env.step(response)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActionParsing(Echo(), style="json"), "style='json'.*'tagged'"),
        (lambda: Prompting(Echo(), template="poem"), "template='poem'.*'instructed'"),
        (lambda: Prompting(Echo(), history=-1), "history=-1"),
        (lambda: InvalidActionPenalty(ActionParsing(Echo()), -0.1), "penalty=-0.1"),
        (lambda: InvalidActionPenalty(Echo(), 0.1), "ActionParsing"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
