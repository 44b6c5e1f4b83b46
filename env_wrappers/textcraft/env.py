"""`env_wrappers/TextCraft-v0`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from env_wrappers.core import PLAIN_SPLITS, TextEnv, check_choice, check_limits, choose_task, whole_number
from env_wrappers.textcraft.recipes import book, depth
from env_wrappers.textcraft.tasks import DEPTHS, MAX_GET, Rules, Task, goals, make_task, plan

DEFAULT_NUM_TASKS = {"train": 10_000, "valid": 200, "test": 200}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of an episode."""

    task: str
    observation: str
    inventory: tuple[tuple[str, int], ...]  # sorted


class TextCraftEnv(TextEnv):
    """Make an item from raw materials, by recipes of which not all are needed.

    Actions: "get 2 oak log" for what no recipe makes, "craft 4 stick using 2 oak planks" as a recipe says (the
    ingredients in any order), "inventory", "look" (the recipes again). The reward is 1 when the item is there, which
    ends the episode, and 0 before. There is no limit of steps.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi"],
        "blocking": False,  # a step takes microseconds
        "thread_safe": True,
    }
    _task: Task | None = None

    def __init__(
        self,
        depths: int | Sequence[int] = DEPTHS,
        distractors: int = 8,
        num_tasks: Mapping[str, int] | None = None,
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """Set the rules by which tasks are made.

        Args:
            depths: how many crafts deep the items may be, of 1 to 4: sticks are 2, for planks come first.
            distractors: recipes that are shown and not needed, 0 to 60.
            num_tasks: number of tasks of a split, e.g. {"train": 500}; by default 10,000, 200 and 200.
            seed: of the tasks.
            render_mode: None or "ansi".
        """
        super().__init__()
        self.render_mode = render_mode
        one = whole_number(depths)
        several = depths if one is None and isinstance(depths, Iterable) else (one,)
        chosen = tuple(whole_number(entry) for entry in several)
        if not chosen or set(chosen) - set(DEPTHS):
            raise ValueError(f"depths={depths!r}: choose from {', '.join(map(str, DEPTHS))}.")
        number = whole_number(distractors)
        if number is None or not 0 <= number <= 60:
            raise ValueError(f"distractors={distractors!r}: give a number of recipes from 0 to 60.")
        self.rules = Rules(seed, tuple(depth for depth in DEPTHS if depth in chosen), number)
        self._num_tasks = DEFAULT_NUM_TASKS | check_limits(num_tasks, PLAIN_SPLITS, least=1)
        self._task_id = ""
        self._inventory: dict[str, int] = {}
        self._observation = ""

    @property
    def splits(self) -> tuple[str, ...]:
        return PLAIN_SPLITS

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, PLAIN_SPLITS)
        return [f"textcraft/{split}/{index:06d}" for index in range(self._num_tasks[split])]

    def goal_items(self, split: str) -> tuple[str, ...]:
        """The items that tasks of a split ask for. No item is asked for in two splits."""
        check_choice("split", split, PLAIN_SPLITS)
        return goals(split, self.rules.depths)

    def plan(self) -> list[str]:
        """Actions that solve the task from here."""
        return plan(self._running(), self._inventory)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a task.

        Args:
            seed: draws the task where `options` names none. A task alone determines its initial state.
            options: {"task": id}, or {"split": name} to draw from another split than "train".
        """
        super().reset(seed=seed)
        task_id = choose_task(self, options)
        self._task = make_task(self.rules, task_id)
        self._task_id = task_id
        self._inventory = {}
        self._observation = self._look()
        return self._observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        task = self._running()
        if not self._success():
            self._observation = self._act(task, action[:1000].strip())
        won = self._success()
        return self._observation, float(won), won, False, self._info()

    def render(self) -> str | None:  # type: ignore[override]
        return self._observation if self.render_mode == "ansi" else None

    def _act(self, task: Task, action: str) -> str:
        verb, _, rest = action.partition(" ")
        if action == "inventory":
            held = ", ".join(f"{number} {item}" for item, number in sorted(self._inventory.items()))
            return f"You hold: {held or 'nothing'}."
        if action == "look":
            return self._look()
        if verb == "get":
            return self._get(rest)
        if verb == "craft":
            return self._craft(task, rest)
        return "Nothing happens. You can get, craft, look, or take inventory."

    def _get(self, rest: str) -> str:
        word, _, item = rest.partition(" ")
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 4 else 0
        if not 1 <= number <= MAX_GET:
            return f"Nothing happens. Say how many to get, 1 to {MAX_GET}: get 2 oak log."
        if item in book():
            return f"Nothing happens. {item} must be crafted."
        if item not in self._raw():
            return f"Nothing happens. There is no {item} here."
        self._inventory[item] = self._inventory.get(item, 0) + number
        return f"You get {number} {item}."

    def _craft(self, task: Task, rest: str) -> str:
        made, _, using = rest.partition(" using ")
        wanted = (made, sorted(using.split(", ")))
        for recipe in task.recipes:
            parts = sorted(f"{number} {item}" for item, number in recipe.ingredients)
            if wanted == (f"{recipe.number} {recipe.item}", parts):
                break
        else:
            return "Nothing happens. No recipe here says so."
        lacking = [
            f"{number - self._inventory.get(item, 0)} {item}"
            for item, number in recipe.ingredients
            if self._inventory.get(item, 0) < number
        ]
        if lacking:
            return f"Nothing happens. You lack {', '.join(lacking)}."
        for item, number in recipe.ingredients:
            self._inventory[item] -= number
            if not self._inventory[item]:
                del self._inventory[item]
        self._inventory[recipe.item] = self._inventory.get(recipe.item, 0) + recipe.number
        return f"You craft {recipe.number} {recipe.item}."

    def _look(self) -> str:
        task = self._running()
        recipes = "\n".join(recipe.command for recipe in task.recipes)
        return f"The recipes:\n{recipes}\n\nYour goal: {task.goal}."

    def _raw(self) -> dict[str, set[int]]:
        """What can be got here, and the numbers of it that recipes ask for."""
        found: dict[str, set[int]] = {}
        for recipe in self._running().recipes:
            for item, number in recipe.ingredients:
                if item not in book():
                    found.setdefault(item, set()).add(number)
        return found

    def _success(self) -> bool:
        task = self._running()
        return self._inventory.get(task.item, 0) >= task.number

    def _info(self) -> dict[str, Any]:
        task = self._running()
        actions = {"inventory", "look"}
        for item, numbers in self._raw().items():
            actions |= {f"get <number> {item}", *(f"get {number} {item}" for number in numbers)}
        for recipe in task.recipes:
            if all(self._inventory.get(item, 0) >= number for item, number in recipe.ingredients):
                actions.add(recipe.command)
        return {
            "admissible_actions": sorted(actions),
            "success": self._success(),
            "task": self._task_id,
            "task_type": f"depth {depth(task.item)}",
            "goal": task.goal,
        }

    def _running(self) -> Task:
        if self._task is None:
            raise RuntimeError("No episode is running; call reset() before step(), plan() or get_state().")
        return self._task

    def get_state(self) -> Snapshot:
        self._running()
        return Snapshot(self._task_id, self._observation, tuple(sorted(self._inventory.items())))

    def set_state(self, state: Snapshot) -> tuple[str, dict[str, Any]]:
        self._task = make_task(self.rules, state.task)
        self._task_id, self._observation, self._inventory = state.task, state.observation, dict(state.inventory)
        return self._observation, self._info()

    def clone(self) -> Self:
        other: Self = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._inventory = dict(self._inventory)
        if self._np_random is not None:
            other._np_random = copy.deepcopy(self._np_random)
        return other
