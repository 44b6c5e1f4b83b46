"""`env_wrappers/TextWorld-v0`. Written for textworld 1.7."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from env_wrappers.core import PLAIN_SPLITS, check_choice, check_limits
from env_wrappers.data_files import data_path
from env_wrappers.replay import ReplayEnv, Scene
from env_wrappers.textworld.games import DIFFICULTIES, KINDS, game_file, parse_task

try:
    import textworld
except ImportError as error:
    raise ModuleNotFoundError(
        f"This environment needs the package textworld ({error}); install it with: "
        "pip install 'proxmo_rllib[textworld]'."
    ) from error

DEFAULT_NUM_TASKS = {"train": 2500, "valid": 50, "test": 50}  # of each kind

# TextWorld loads games with a parser that all of a process share.
_lock = threading.RLock()

_BANNER = re.compile(r"\A(?:[ _|\\/$>]*\n)*")
_STATUS = re.compile(r"(\s*Would you like to RESTART[^\n]*)?(\n>[ \t]+-= .* =-\d+/\d+\s*|\n>\s*)\Z")
_GAPS = re.compile(r"\s*\n\s*\n\s*")


class TextWorldEnv(ReplayEnv):
    """A generated game of TextWorld, such as "cooking/train/000012".

    Its id and the arguments determine the game. It is generated and compiled at the first reset, which takes seconds,
    and kept in `folder`. The reward is by default the change of the game's score, as a share of the highest. The game
    is lost where TextWorld says so, as when one burns the food. There is no limit of steps.

    Only admissible actions reach the game; it would take others for orders to itself, such as to quit or to save.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi"],
        "blocking": True,
        "thread_safe": True,
    }
    refusal = "You can't do that."
    engine_attributes = ("_game", "_plan")
    _game: Any = None
    _plan: tuple[str, ...] = ()
    _goal = ""

    def __init__(
        self,
        kinds: str | Sequence[str] = tuple(KINDS),
        difficulty: str = "easy",
        folder: str | os.PathLike[str] | None = None,
        reward: str = "score",
        num_tasks: Mapping[str, int] | None = None,
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """Choose the games.

        Args:
            kinds: of "coin_collector", "cooking", "quest", "treasure_hunter"; one name, several with commas between
                them, or a sequence.
            difficulty: "easy", "normal" or "hard".
            folder: where games are kept, 0.4 MB each; None for a temporary folder of this process, of 256 games.
            reward: "score" or "success", as of `ReplayEnv`.
            num_tasks: tasks of each kind in a split, e.g. {"train": 100}; by default 2,500, 50 and 50.
            seed: of the generator.
            render_mode: None or "ansi".
        """
        super().__init__(reward, render_mode)
        names = [name.strip() for name in kinds.split(",")] if isinstance(kinds, str) else list(kinds)
        for name in names:
            check_choice("kind", name, tuple(KINDS))
        check_choice("difficulty", difficulty, DIFFICULTIES)
        self.kinds = tuple(sorted(set(names)))
        self._difficulty = difficulty
        self._folder = None if folder is None else data_path("folder", folder).absolute()
        if self._folder is not None and self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"folder={folder!r} is a file; give a folder to keep games in, or leave it out.")
        self._seed = seed
        self._num_tasks = DEFAULT_NUM_TASKS | check_limits(num_tasks, PLAIN_SPLITS, least=1)

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, self.splits)
        # Kind after kind in turn, so that the first tasks are of all kinds.
        return [f"{kind}/{split}/{index:06d}" for index in range(self._num_tasks[split]) for kind in self.kinds]

    def plan(self) -> list[str]:
        """TextWorld's own commands that win from here."""
        self._running()
        return list(self._plan)

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None

    def _check_task(self, task: str) -> None:
        kind, _ = parse_task(task)
        if kind not in self.kinds:
            raise ValueError(f"task={task!r}: this environment plays {', '.join(self.kinds)}; pass kinds=... for more.")

    def _begin(self) -> Scene:
        path = game_file(self._task, self._difficulty, self._seed, self._folder)
        wanted = textworld.EnvInfos(
            admissible_commands=True, won=True, lost=True, objective=True, score=True, max_score=True,
            policy_commands=True,
        )  # fmt: skip
        with _lock:
            self.close()
            self._game = textworld.start(str(path), wanted)
            self._game.seed(0)
            state = self._game.reset()
        self._goal = _clean(state.objective)
        return self._scene_of(state)

    def _accepts(self, action: str) -> bool:
        return action in self._running().actions

    def _advance(self, action: str) -> Scene:
        with _lock:
            state, _, _ = self._game.step(action)
        return self._scene_of(state)

    def _scene_of(self, state: Any) -> Scene:
        self._plan = tuple(state.policy_commands or ())
        success, lost = bool(state.won), bool(state.lost)
        return Scene(
            observation=_clean(state.feedback),
            actions=tuple(sorted(set(state.admissible_commands))),
            success=success,
            over=success or lost,
            score=float(state.score or 0) / max(state.max_score, 1),
        )

    def _describe(self) -> tuple[str, str]:
        return parse_task(self._task)[0], self._goal


def _clean(text: str) -> str:
    """What a game says, without its banner, its status line and its prompt."""
    return _GAPS.sub("\n\n", _STATUS.sub("", _BANNER.sub("", text.rstrip() + "\n").rstrip())).strip()
