"""Which item a task asks for, and which recipes it shows. A task's id and the arguments determine both."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from functools import lru_cache

from env_wrappers.core import PLAIN_SPLITS
from env_wrappers.textcraft.recipes import Recipe, book, depth

DEPTHS = (1, 2, 3, 4)
MAX_GET = 64  # of an item at once: a stack
_SHARES = (0.7, 0.85)  # of the items of a depth that are in train, and in train or valid


@dataclass(frozen=True, slots=True)
class Rules:
    """What tasks are made from.

    Attributes:
        seed: another seed makes other tasks.
        depths: how many crafts deep the item may be.
        distractors: recipes that are shown and not needed.
    """

    seed: int
    depths: tuple[int, ...]
    distractors: int


@dataclass(frozen=True, slots=True)
class Task:
    """An item to make, and the recipes to make it by.

    Attributes:
        item: what is asked for.
        number: how many.
        recipes: those that are shown and may be followed, mixed.
    """

    item: str
    number: int
    recipes: tuple[Recipe, ...]

    @property
    def goal(self) -> str:
        """The instruction."""
        return f"craft {self.number} {self.item}"


@lru_cache
def goals(split: str, depths: tuple[int, ...]) -> tuple[str, ...]:
    """Items that the tasks of a split ask for; no item is in two splits."""
    chosen: list[str] = []
    for wanted in depths:
        # In the order of their hashes, so that a split has wood, wool and tools alike.
        items = sorted(
            (item for item in book() if depth(item) == wanted), key=lambda i: hashlib.sha256(i.encode()).digest()
        )
        first, second = (round(share * len(items)) for share in _SHARES)
        chosen += dict(zip(PLAIN_SPLITS, (items[:first], items[first:second], items[second:]), strict=True))[split]
    return tuple(chosen)


@lru_cache(maxsize=4096)
def make_task(rules: Rules, task: str) -> Task:
    """The task of an id such as "textcraft/train/000123".

    Raises:
        ValueError: it is no id of a task.
    """
    match = re.fullmatch(r"textcraft/(\w+)/(\d{6,})", task)
    if match is None or match[1] not in PLAIN_SPLITS:
        raise ValueError(
            f"task={task!r} is no task of TextCraft; ids look like 'textcraft/train/000123', and tasks(split) lists "
            "them."
        )
    rng = random.Random(f"{rules.seed}/{task}")
    # First the depth: there are many more shallow items than deep ones.
    of_depth = goals(match[1], (rng.choice(rules.depths),))
    item = rng.choice(of_depth)
    needed: dict[str, Recipe] = {}
    _add_recipes(item, needed, rng)
    others = [recipe for recipes in book().values() for recipe in recipes if recipe.item not in needed]
    shown = [*needed.values(), *rng.sample(others, min(rules.distractors, len(others)))]
    rng.shuffle(shown)
    return Task(item, rng.choice((1, 1, 1, 2, 3)) if depth(item) < 3 else 1, tuple(shown))


def _add_recipes(item: str, needed: dict[str, Recipe], rng: random.Random) -> None:
    """One recipe for an item, and for all that goes into it."""
    if item in needed or item not in book():
        return
    shortest = [
        recipe for recipe in book()[item] if 1 + max(depth(part) for part, _ in recipe.ingredients) == depth(item)
    ]
    needed[item] = recipe = rng.choice(shortest)
    for part, _ in recipe.ingredients:
        _add_recipes(part, needed, rng)


def plan(task: Task, inventory: dict[str, int]) -> list[str]:
    """Actions that lead from an inventory to the goal; not always the fewest."""
    recipes: dict[str, Recipe] = {}
    for recipe in task.recipes:
        recipes.setdefault(recipe.item, recipe)
    demand = {task.item: task.number}
    actions: list[str] = []
    # From the deepest item down: when an item's turn comes, all that it goes into has been counted.
    while demand:
        item = max(demand, key=lambda name: (depth(name), name))
        lacking = demand.pop(item) - inventory.get(item, 0)
        if lacking <= 0:
            continue
        if item not in recipes:
            actions += [f"get {min(MAX_GET, lacking - done)} {item}" for done in range(0, lacking, MAX_GET)]
            continue
        recipe = recipes[item]
        times = -(-lacking // recipe.number)
        actions += [recipe.command] * times
        for part, number in recipe.ingredients:
            demand[part] = demand.get(part, 0) + number * times
    return actions[::-1]
