"""Crafters: what they reach, that they only read, and how they recover."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env_wrappers.core import is_admissible
from env_wrappers.textcraft.env import TextCraftEnv
from env_wrappers.textcraft.experts import HastyCrafter, ReadingCrafter

TURNS = 16
WORLD: dict[str, Any] = {"depths": (1, 2, 3), "distractors": 4}
# Items that are in no book.
GLORP = """The recipes:
craft 1 wug using 1 blick, 1 dax
craft 3 glorp using 7 blick
craft 4 blick using 2 fine dax
craft 4 fine dax using 1 dax

Your goal: craft 4 glorp."""


def make(**arguments: Any) -> TextCraftEnv:
    env = gymnasium.make("env_wrappers/TextCraft-v0", **(WORLD | arguments)).unwrapped
    assert isinstance(env, TextCraftEnv)
    return env


def play(env: TextCraftEnv, crafter: ReadingCrafter, task: str, turns: int = TURNS) -> tuple[bool, list[str]]:
    """Whether a task was solved, and by which actions."""
    observation, info = env.reset(options={"task": task})
    crafter.reset(observation, info)
    actions: list[str] = []
    while not info["success"] and len(actions) < turns:
        actions.append(crafter.act(observation, info))
        observation, _, _, _, info = env.step(actions[-1])
    return info["success"], actions


def share_solved(env: TextCraftEnv, make_crafter: Callable[[random.Random], ReadingCrafter], split: str) -> float:
    tasks = env.tasks(split)[:200]
    return sum(play(env, make_crafter(random.Random(task)), task)[0] for task in tasks) / len(tasks)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_who_reads_solves_every_task_with_no_action_too_many(split: str) -> None:
    env = make(depths=(1, 2, 3, 4), distractors=8)
    for task in env.tasks(split)[:200]:
        env.reset(options={"task": task})
        fewest = len(env.plan())
        solved, actions = play(env, ReadingCrafter(random.Random(0)), task, turns=100)
        assert solved
        assert len(actions) == fewest, task


def test_of_all_that_can_be_solved_in_time_none_is_missed() -> None:
    env = make()
    for task in env.tasks("test"):
        env.reset(options={"task": task})
        in_time = len(env.plan()) <= TURNS
        assert play(env, ReadingCrafter(random.Random(0)), task)[0] == in_time


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_who_is_hasty_solves_a_quarter_or_so(split: str) -> None:
    assert 0.1 < share_solved(make(), HastyCrafter, split) < 0.4 < 0.9 < share_solved(make(), ReadingCrafter, split)


def test_a_beginner_without_bad_habits_is_as_good_as_the_expert() -> None:
    env = make()

    def careful(rng: random.Random) -> HastyCrafter:
        return HastyCrafter(rng, impatience=0, distraction=0, carelessness=0, idleness=0, slips=(0.0,))

    for task in env.tasks("valid")[:50]:
        assert play(env, careful(random.Random(1)), task) == play(env, ReadingCrafter(random.Random(0)), task)


@pytest.mark.parametrize(
    ("habit", "first"),
    [
        ("impatience", {"craft 3 glorp using 7 blick"}),
        ("distraction", {"get 1 blick", "get 1 dax"}),
        ("carelessness", {"get 1 dax"}),
        ("idleness", {"inventory"}),
    ],
)
def test_each_habit_is_what_it_is_called(habit: str, first: set[str]) -> None:
    chances = dict.fromkeys(("impatience", "distraction", "carelessness", "idleness"), 0.0) | {habit: 1.0}
    seen = set()
    for seed in range(20):
        crafter = HastyCrafter(random.Random(seed), **chances, slips=(0.0,))
        crafter.reset(GLORP, {})
        seen.add(crafter.act(GLORP, {}))
    assert seen == first


def converse(crafter: ReadingCrafter, *exchange: tuple[str, str]) -> None:
    """The crafter does as expected: of each pair the first is the action, the second what it is answered."""
    crafter.reset(GLORP, {})
    observation = GLORP
    for action, answer in exchange:
        assert crafter.act(observation, {}) == action
        observation = answer


def test_recipes_and_goal_are_read_from_the_text_alone() -> None:
    blick, glorp = "craft 4 blick using 2 fine dax", "craft 3 glorp using 7 blick"
    fine = "craft 4 fine dax using 1 dax"
    converse(
        ReadingCrafter(random.Random(0)),
        ("get 2 dax", "You get 2 dax."),
        (fine, "You craft 4 fine dax."),
        (fine, "You craft 4 fine dax."),
        *[(blick, "You craft 4 blick.")] * 4,
        (glorp, "You craft 3 glorp."),
        (glorp, "You craft 3 glorp."),
        ("look", GLORP),
    )


def test_it_goes_on_from_what_others_did_in_its_place() -> None:
    converse(
        ReadingCrafter(random.Random(0)),
        ("get 2 dax", "Nothing happens. Say how many to get, 1 to 64: get 2 oak log."),
        ("get 2 dax", "You get 1 dax."),
        ("get 1 dax", "Nothing happens. You lack 7 blick."),
        ("get 1 dax", "You get 1 dax."),
        ("craft 4 fine dax using 1 dax", GLORP),
        ("craft 4 fine dax using 1 dax", "You get 13 blick."),
        ("craft 4 fine dax using 1 dax", "You craft 4 fine dax."),
        ("craft 4 blick using 2 fine dax", "You craft 1 wug."),
        ("craft 4 blick using 2 fine dax", "You hold: 14 blick, 1 wug."),
        ("craft 3 glorp using 7 blick", "You craft 3 glorp."),
    )


@pytest.mark.parametrize(
    "answer",
    ["The sky is blue.", "", "You hold: what you like.", "You craft 9 glorp.", "Nothing happens. You lack 1 dax."],
)
def test_an_answer_that_makes_no_sense_makes_it_look_what_it_holds(answer: str) -> None:
    converse(
        ReadingCrafter(random.Random(0)),
        ("get 2 dax", "You get 2 dax."),
        ("craft 4 fine dax using 1 dax", answer),
        ("inventory", "You hold: nothing."),
        ("get 2 dax", "You get 2 dax."),
    )


@pytest.mark.parametrize("answer", ["There is no dax here", "dax must be crafted"])
def test_what_cannot_be_made_is_not_tried_for_ever(answer: str) -> None:
    refused = f"Nothing happens. {answer}."
    converse(ReadingCrafter(random.Random(0)), ("get 2 dax", refused), ("look", GLORP), ("look", GLORP))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("You are in a room.", "no beginning of TextCraft's tasks"),
        ("The recipes:\ncraft 4 stick using 2 oak planks", "no beginning of TextCraft's tasks"),
        ("craft 4 stick using 2 oak planks\n\nYour goal: craft 1 ladder.", "'ladder', and none of the 1 recipes"),
        (GLORP[:60], "no beginning of TextCraft's tasks"),
        (GLORP.replace("4 glorp", "0 glorp"), "no beginning of TextCraft's tasks"),
        (GLORP.replace("7 blick", "0 blick"), "'glorp', and none of the 3 recipes"),
        (GLORP.replace("7 blick", "9" * 5000 + " blick"), "'glorp', and none of the 3 recipes"),
        ("craft 1 a using 1 b\ncraft 1 b using 1 a\n\nYour goal: craft 1 a.", "'a' is needed to make 'a'"),
    ],
)
def test_a_text_that_is_none_of_its_world_is_refused(text: str, says: str) -> None:
    for crafter in (ReadingCrafter(random.Random(0)), HastyCrafter(random.Random(0))):
        with pytest.raises(ValueError, match=says):
            crafter.reset(text, {})


ANSWERS = st.sampled_from(["You get 2 dax.", "You craft 4 blick.", "You hold: nothing.", GLORP]) | st.text(max_size=60)
PREFIXES = st.sampled_from(["", "You get ", "You hold: ", "You craft ", "Nothing happens. You lack "])


@settings(max_examples=200, deadline=None)
@given(answers=st.lists(st.tuples(PREFIXES, ANSWERS).map("".join), max_size=6), seed=st.integers(0, 9))
def test_whatever_it_is_answered_it_acts(answers: list[str], seed: int) -> None:
    for crafter in (ReadingCrafter(random.Random(seed)), HastyCrafter(random.Random(seed), slips=(0.0,))):
        crafter.reset(GLORP, {})
        for answer in (GLORP, *answers):
            assert crafter.act(answer, {}).split()[0] in ("get", "craft", "inventory", "look")


def test_slips_cost_turns_and_not_the_task() -> None:
    env = make()
    for task in env.tasks("test")[:100]:
        crafter = ReadingCrafter(random.Random(task), slips=(0.3,))
        assert play(env, crafter, task, turns=120)[0], task
    assert share_solved(env, lambda rng: ReadingCrafter(rng, slips=(0.15,)), "test") > 0.9


def test_slips_are_marked_and_nothing_else_is() -> None:
    env = make()
    slipping, careful = ReadingCrafter(random.Random(0), slips=(1.0,)), ReadingCrafter(random.Random(0))
    some_work, some_do_not = False, False
    for task in env.tasks("train")[:20]:
        observation, info = env.reset(options={"task": task})
        for crafter in (careful, slipping):
            crafter.reset(observation, info)
        assert is_admissible(careful.act(observation, info), info["admissible_actions"])
        assert not careful.detour
        admissible = is_admissible(slipping.act(observation, info), info["admissible_actions"])
        assert slipping.detour
        some_work, some_do_not = some_work or admissible, some_do_not or not admissible
    assert some_work
    assert some_do_not


def test_the_same_seed_plays_the_same_episodes() -> None:
    env = make()

    def episodes(make_crafter: Callable[[random.Random], ReadingCrafter], seed: int) -> list[tuple[bool, list[str]]]:
        crafter = make_crafter(random.Random(seed))
        return [play(env, crafter, task) for task in env.tasks("train")[:12]]

    for kind in (HastyCrafter, lambda rng: ReadingCrafter(rng, slips=(0.3,))):
        assert episodes(kind, 3) == episodes(kind, 3)
        assert episodes(kind, 3) != episodes(kind, 4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"slips": ()}, r"slips=\(\)"),
        ({"slips": (2,)}, r"slips=\(2,\)"),
        ({"carelessness": -1}, "carelessness=-1"),
        ({"impatience": 0.7, "distraction": 0.7}, "together at most 1"),
    ],
)
def test_chances_that_are_none_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        HastyCrafter(random.Random(0), **wrong)
