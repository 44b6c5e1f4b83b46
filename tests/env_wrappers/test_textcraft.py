"""Every task of TextCraft can be solved, and no split asks for an item of another."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import pytest

from env_wrappers.textcraft.env import TextCraftEnv
from env_wrappers.textcraft.recipes import Recipe, book, depth
from env_wrappers.textcraft.tasks import DEPTHS


def make(**arguments: Any) -> TextCraftEnv:
    env = gymnasium.make("env_wrappers/TextCraft-v0", **arguments).unwrapped
    assert isinstance(env, TextCraftEnv)
    return env


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_plan_solves_every_task(split: str) -> None:
    env = make()
    for task in env.tasks(split)[:150]:
        _, info = env.reset(options={"task": task})
        plan = env.plan()
        rewards = []
        for action in plan:
            observation, reward, terminated, _, info = env.step(action)
            assert not observation.startswith("Nothing happens."), (task, action)
            rewards.append(reward)
        assert terminated
        assert info["success"]
        assert rewards == [0.0] * (len(plan) - 1) + [1.0]


def test_a_plan_from_the_middle_takes_the_inventory_into_account() -> None:
    env = make(depths=(3, 4))
    for task in env.tasks("train")[:50]:
        env.reset(options={"task": task})
        plan = env.plan()
        env.step(plan[0])
        env.step("get 1 nonsense")
        for action in env.plan():
            assert not env.step(action)[0].startswith("Nothing happens.")
        assert env.step("look")[4]["success"]


def test_no_item_is_asked_for_in_two_splits() -> None:
    env = make()
    items = {split: set(env.goal_items(split)) for split in env.splits}
    for one, other in itertools.combinations(items.values(), 2):
        assert not one & other
    assert {split: len(names) for split, names in items.items()} == {"train": 223, "valid": 47, "test": 48}
    for split in env.splits:
        for task in env.tasks(split)[:100]:
            goal = env.reset(options={"task": task})[1]["goal"]
            assert goal.split(" ", 2)[2] in items[split]


def test_every_depth_has_tasks_in_every_split() -> None:
    for number in DEPTHS:
        env = make(depths=number)
        for split in env.splits:
            _, info = env.reset(options={"task": env.tasks(split)[0]})
            assert info["task_type"] == f"depth {number}"
            assert len([a for a in env.plan() if a.startswith("craft")]) >= number


def test_no_item_goes_into_itself_and_deep_ones_are_made_of_shallower_ones() -> None:
    for item, recipes in book().items():
        assert depth(item) == 1 + min(max(depth(part) for part, _ in recipe.ingredients) for recipe in recipes)
    assert depth("oak log") == 0
    assert depth("stick") == 2


def test_crafting_keeps_the_books() -> None:
    env = make(depths=1, distractors=0)
    task = next(
        task for task in env.tasks("train") if env.reset(options={"task": task})[1]["goal"] == "craft 1 iron block"
    )
    env.reset(options={"task": task})
    assert env._task is not None
    assert env._task.recipes == (Recipe("iron block", 1, (("iron ingot", 9),)),)
    assert env.step("get 8 iron ingot")[0] == "You get 8 iron ingot."
    assert env.step("craft 1 iron block using 9 iron ingot")[0] == "Nothing happens. You lack 1 iron ingot."
    assert env.step("inventory")[0] == "You hold: 8 iron ingot."
    assert env.step("get 1 iron block")[0] == "Nothing happens. iron block must be crafted."
    assert env.step("get 1 diamond")[0] == "Nothing happens. There is no diamond here."
    assert env.step("get 99 iron ingot")[0].startswith("Nothing happens. Say how many")
    env.step("get 2 iron ingot")
    observation, reward, terminated, _, info = env.step("craft 1 iron block using 9 iron ingot")
    assert (observation, reward, terminated, info["success"]) == ("You craft 1 iron block.", 1.0, True, True)
    assert dict(env.get_state().inventory) == {"iron block": 1, "iron ingot": 1}


def test_another_seed_makes_other_tasks() -> None:
    starts = [make(seed=seed).reset(options={"task": "textcraft/train/000000"})[0] for seed in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 9)}, r"depths=\(1, 9\)"),
        ({"distractors": -1}, "distractors=-1"),
        ({"num_tasks": {"nowhere": 3}}, "'nowhere'"),
        ({"num_tasks": {"train": 0}}, "1 or more"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
