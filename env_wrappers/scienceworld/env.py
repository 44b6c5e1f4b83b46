"""`env_wrappers/ScienceWorld-v0`. Written for scienceworld 1.2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from env_wrappers.core import check_choice, whole_number
from env_wrappers.java import JavaEnv
from env_wrappers.replay import Scene
from env_wrappers.scienceworld.actions import MIN_ACTIONS, RESTART, choose_actions
from env_wrappers.scienceworld.tasks import VARIATIONS, parse_task, task_ids

SIMPLIFICATIONS = (
    "easy",
    "noElectricalAction",
    "openContainers",
    "openDoors",
    "selfWateringFlowerPots",
    "teleportAction",
)
_AMBIGUOUS = "Ambiguous request"


class ScienceWorldEnv(JavaEnv):
    """An experiment of ScienceWorld, such as "boil/3": the kind of task and its variation, which determines it.

    The reward is by default the change of the engine's score, of which 0 to 100 points are 0 to 1. To focus on a wrong
    object loses the episode: the engine then says -100, and the score is 0. There is no limit of steps.

    The list of admissible actions is cut, see `actions.choose_actions`. When the engine asks which of several objects
    was meant, the list has the numbers to answer with and nothing else.
    """

    extra = "scienceworld"
    refusal = "No known action matches that input."
    _goal = ""
    _templates: tuple[str, ...] = ()

    def __init__(
        self,
        task_types: str | Sequence[str] | None = None,
        simplifications: str | Sequence[str] = (),
        max_actions: int = 100,
        reward: str = "score",
        num_tasks: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Choose the tasks; Java starts at the first reset.

        Args:
            task_types: of `VARIATIONS`; one name, several with commas between them, a sequence, or None for all.
            simplifications: of `SIMPLIFICATIONS`, likewise; none by default.
            max_actions: length of the list of admissible actions at most, `MIN_ACTIONS` or more.
            reward: "score" or "success", as of `ReplayEnv`.
            num_tasks: variations of each type in each split at most; None for all.
            render_mode: None or "ansi".

        Raises:
            ModuleNotFoundError: the extra is not installed.
            ValueError: an argument is wrong.
        """
        super().__init__(reward, render_mode)
        names = _names(tuple(VARIATIONS) if task_types is None else task_types)
        for name in names:
            check_choice("task type", name, tuple(VARIATIONS))
        self.task_types = tuple(sorted(set(names)))
        self._simplifications = _names(simplifications)
        for name in self._simplifications:
            check_choice("simplification", name, SIMPLIFICATIONS)
        electric = [name for name in self.task_types if "power-component" in name or "conductivity" in name]
        if electric and {"easy", "noElectricalAction"} & set(self._simplifications):
            raise ValueError(
                f"simplifications={self._simplifications}: without electrical actions {', '.join(electric)} cannot be "
                "solved; choose other task_types, or simplifications without it."
            )
        most = whole_number(max_actions)
        if most is None or most < MIN_ACTIONS:
            raise ValueError(
                f"max_actions={max_actions!r}: give {MIN_ACTIONS} or more, or a type of action would go unlisted."
            )
        number = whole_number(num_tasks)
        if num_tasks is not None and (number is None or number < 1):
            raise ValueError(f"num_tasks={num_tasks!r}: give a number of variations of each type, 1 or more, or None.")
        self._max_actions = most
        self._num_tasks = number

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, self.splits)
        return task_ids(split, self.task_types, self._num_tasks)

    def _check_task(self, task: str) -> None:
        kind, _ = parse_task(task)
        if kind not in self.task_types:
            raise ValueError(
                f"task={task!r}: this environment plays {', '.join(self.task_types)}; pass task_types=... for more."
            )

    def _interface(self, jvm: Any) -> Any:
        return jvm.scienceworld.runtime.pythonapi.PythonInterface()

    def _load_solved(self) -> None:
        kind, variation = parse_task(self._task)
        self._server.load(kind, variation, ",".join(self._simplifications), True)

    def _begin(self) -> Scene:
        said = self._start()
        scene: Scene = self._running_java().call(self._scene_of, said)
        return scene

    def _start(self) -> str:
        kind, variation = parse_task(self._task)
        machine = self._running_java()

        def start() -> str:
            self._server.load(kind, variation, ",".join(self._simplifications), False)
            self._server.reset()
            self._templates = tuple(self._server.getPossibleActions())
            self._goal = str(self._server.getTaskDescription()).removeprefix("Task Description:").strip()
            return str(self._server.step("look around"))  # as the package's own reset does

        return str(machine.call(start))

    def _accepts(self, action: str) -> bool:
        return action != RESTART

    def _advance(self, action: str) -> Scene:
        def advance() -> Scene:
            said = str(self._server.step(action))
            if said.strip() == self.refusal:  # nothing has happened: what is valid, which takes longer, is known
                return replace(self._running(), observation=self.refusal)
            return self._scene_of(said)

        assert self._java is not None  # the one that the episode began in: another knows nothing of it
        scene: Scene = self._java.call(advance)
        return scene

    def _play(self, actions: Sequence[str]) -> Scene:
        """As of `ReplayEnv`, but the valid actions, which take longer than the step, are asked for only at the end."""
        said = self._start()

        def play() -> Scene:
            text = said
            for action in actions:
                text = str(self._server.step(action)) if self._accepts(action) else self.refusal
            return self._scene_of(text)

        scene: Scene = self._running_java().call(play)
        return scene

    def _scene_of(self, text: str) -> Scene:
        server = self._server
        score = round(100 * server.getScore()) / 100
        valid: dict[str, int] = {}
        for entry in json.loads(server.getValidActionObjectCombinationsJSON())["validActions"]:
            # Some words stand for two types of action, which come in any order.
            valid[entry["action"]] = min(int(entry["template_id"]), valid.get(entry["action"], 1000))
        if text.startswith(_AMBIGUOUS):
            actions = tuple(sorted(valid))
        else:
            actions = choose_actions(valid, self._templates, self._goal, self._max_actions)
        completed = bool(server.getCompleted())
        return Scene(
            observation=text.strip(),
            actions=actions,
            success=completed and score >= 1,
            over=completed or score < 0,
            score=min(max(score, 0.0), 1.0),
        )

    def _describe(self) -> tuple[str, str]:
        return parse_task(self._task)[0], self._goal


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given)
