"""`env_wrappers/TextWorldExpress-v0`. Written for textworld-express 1.1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from env_wrappers.core import check_choice, whole_number
from env_wrappers.java import JavaEnv
from env_wrappers.replay import Scene

GAMES = ("arithmetic", "coin", "cookingworld", "mapreader", "peckingorder", "simonsays", "sorting", "twc")
# Seeds of each split as the engine has them, and its name for the split.
FOLDS = {"train": (0, "train"), "valid": (10_000, "dev"), "test": (20_000, "test")}
FOLD_SIZE = 1000


class TextWorldExpressEnv(JavaEnv):
    """A game of TextWorldExpress, such as "coin/17": the game's name and its seed, which determines it.

    The reward is by default the change of the engine's score, which goes from 0 to 1. A wrong move loses some games
    (arithmetic, sorting, peckingorder, simonsays, cookingworld). There is no limit of steps.
    """

    extra = "textworld_express"
    refusal = "Unknown action: I'm not sure what you mean."
    _goal = ""

    def __init__(
        self,
        games: str | Sequence[str] = GAMES,
        game_params: Mapping[str, str] | None = None,
        reward: str = "score",
        num_tasks: int = FOLD_SIZE,
        render_mode: str | None = None,
    ) -> None:
        """Choose the games; Java starts at the first reset.

        Args:
            games: of `GAMES`; one name, several with commas between them, or a sequence.
            game_params: the engine's parameters of a game, e.g. {"coin": "numLocations=3,includeDoors=0"}.
            reward: "score" or "success", as of `ReplayEnv`.
            num_tasks: of each game in each split, 1 to 1000.
            render_mode: None or "ansi".

        Raises:
            ModuleNotFoundError: the extra is not installed.
            ValueError: an argument is wrong.
        """
        super().__init__(reward, render_mode)
        names = [name.strip() for name in games.split(",")] if isinstance(games, str) else list(games)
        for name in (*names, *(game_params or {})):
            check_choice("game", name, GAMES)
        number = whole_number(num_tasks)
        if number is None or not 1 <= number <= FOLD_SIZE:
            raise ValueError(f"num_tasks={num_tasks!r}: each game has {FOLD_SIZE} seeds a split; give 1 to that many.")
        self.games = tuple(sorted(set(names)))
        self._params = dict(game_params or {})
        self._num_tasks = number

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, self.splits)
        first = FOLDS[split][0]
        # Game after game in turn, so that the first tasks are of all games.
        return [f"{game}/{seed}" for seed in range(first, first + self._num_tasks) for game in self.games]

    def _check_task(self, task: str) -> None:
        if _parse(task)[0] not in self.games:
            raise ValueError(f"task={task!r}: this environment plays {', '.join(self.games)}; pass games=... for more.")

    def _interface(self, jvm: Any) -> Any:
        return jvm.textworldexpress.runtime.PythonInterface()

    def _load_solved(self) -> None:
        game, seed, fold = _parse(self._task)
        self._server.load(game, self._params.get(game, ""))
        self._server.generateNewGameJSON(seed, fold, True)

    def _begin(self) -> Scene:
        game, seed, fold = _parse(self._task)
        machine = self._running_java()
        params = self._params.get(game, "")
        problem = machine.call(self._server.load, game, params)
        scene = _scene(machine.call(self._server.generateNewGameJSON, seed, fold, False))
        # For a parameter that it does not know, the engine loads nothing and says so only now.
        if problem or scene.observation.startswith("ERROR"):
            raise ValueError(
                f"game_params[{game!r}]={params!r}: the engine says: {problem or scene.observation} Write them as "
                "'numLocations=3,includeDoors=0', with names and numbers that this game knows."
            )
        self._goal = str(machine.call(self._server.getTaskDescription))
        return scene

    def _advance(self, action: str) -> Scene:
        assert self._java is not None  # the one that the episode began in: another knows nothing of it
        return _scene(self._java.call(self._server.stepJSON, action))

    def _describe(self) -> tuple[str, str]:
        return self._task.partition("/")[0], self._goal


def _parse(task: str) -> tuple[str, int, str]:
    """Game, seed and the engine's name of the split."""
    game, _, word = task.partition("/")
    if game in GAMES and word.isascii() and word.isdigit() and word == str(int(word)):
        for first, fold in FOLDS.values():
            if first <= int(word) < first + FOLD_SIZE:
                return game, int(word), fold
    raise ValueError(
        f"task={task!r} is no task of TextWorldExpress; ids look like 'coin/17', and tasks(split) lists them."
    )


def _scene(answer: str) -> Scene:
    said = json.loads(answer)
    success, failure = bool(said["tasksuccess"]), bool(said["taskfailure"])
    return Scene(
        observation=said["observation"].strip(),
        actions=tuple(sorted(set(said["validActions"]))),
        success=success,
        over=success or failure,
        score=float(said["score"]),
    )
