"""Base of environments whose engine cannot be copied: a moment of an episode is its task and the actions so far."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from env_wrappers.core import PLAIN_SPLITS, TextEnv, check_choice, choose_task

REWARDS = ("score", "success")
MAX_ACTION = 1000  # characters of an action that an engine is shown; no action of any of them is longer


@dataclass(frozen=True, slots=True)
class Scene:
    """What an engine says after a reset or an action.

    Attributes:
        observation: in words.
        actions: the admissible ones, sorted.
        success: whether the task is solved.
        over: whether the episode has ended, solved or lost.
        score: progress, from 0 to 1.
    """

    observation: str
    actions: tuple[str, ...]
    success: bool
    over: bool
    score: float


@dataclass(frozen=True, slots=True)
class Replay:
    """A moment of an episode: playing the actions again leads to it."""

    task: str
    actions: tuple[str, ...]


class ReplayEnv(TextEnv):
    """An environment around an engine that is started with a task and sent actions.

    A step after the end of an episode changes nothing and is worth nothing.
    """

    refusal: ClassVar[str] = "Nothing happens."  # to an action that the engine is not shown
    engine_attributes: ClassVar[tuple[str, ...]] = ()  # left out of pickles and copies
    _scene: Scene | None = None
    _task = ""
    _actions: tuple[str, ...] = ()

    def __init__(self, reward: str, render_mode: str | None) -> None:
        """Args: reward: "score", its change, so that an episode's rewards add up to it; or "success", 1 at the end of
        a solved task. render_mode: None or "ansi".
        """
        super().__init__()
        check_choice("reward", reward, REWARDS)
        self.reward = reward
        self.render_mode = render_mode

    @property
    def splits(self) -> tuple[str, ...]:
        return PLAIN_SPLITS

    @abstractmethod
    def _check_task(self, task: str) -> None:
        """Raises ValueError if there is no such task."""

    @abstractmethod
    def _begin(self) -> Scene:
        """Start `self._task`."""

    @abstractmethod
    def _advance(self, action: str) -> Scene:
        """Send an action to the engine."""

    @abstractmethod
    def _describe(self) -> tuple[str, str]:
        """Task type and goal of the running episode."""

    def _accepts(self, action: str) -> bool:
        """Whether the engine is to be shown an action; if not, the answer is `refusal`."""
        return True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a task.

        Args:
            seed: draws the task where `options` names none. A task alone determines its initial state.
            options: {"task": id}, or {"split": name} to draw from another split than "train".
        """
        super().reset(seed=seed)
        task = choose_task(self, options)
        self._check_task(task)
        self._task, self._actions, self._scene = task, (), None
        self._scene = self._begin()
        return self._scene.observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        before = self._running()
        if before.over:
            return before.observation, 0.0, True, False, self._info()
        # A lone surrogate, as half an emoji is, has no encoding that an engine could be sent.
        action = action[:MAX_ACTION].encode("utf-8", "replace").decode().strip()
        self._actions += (action,)
        self._scene = after = self._answer(before, action)
        reward = after.score - before.score if self.reward == "score" else float(after.success)
        return after.observation, reward, after.over, False, self._info()

    def render(self) -> str | None:  # type: ignore[override]
        return self._running().observation if self.render_mode == "ansi" else None

    def _answer(self, before: Scene, action: str) -> Scene:
        return self._advance(action) if self._accepts(action) else replace(before, observation=self.refusal)

    def _running(self) -> Scene:
        if self._scene is None:
            raise RuntimeError("No episode is running; call reset() before step(), render() or get_state().")
        return self._scene

    def _info(self) -> dict[str, Any]:
        scene = self._running()
        task_type, goal = self._describe()
        return {
            "admissible_actions": list(scene.actions),
            "success": scene.success,
            "task": self._task,
            "task_type": task_type,
            "goal": goal,
            "score": scene.score,
        }

    def get_state(self) -> Replay:
        self._running()
        return Replay(self._task, self._actions)

    def set_state(self, state: Replay) -> tuple[str, dict[str, Any]]:
        self._task, self._actions, self._scene = state.task, state.actions, None
        self._scene = self._play(state.actions)
        return self._scene.observation, self._info()

    def _play(self, actions: Sequence[str]) -> Scene:
        """Start `self._task` and play actions."""
        self._scene = self._begin()
        for action in actions:
            self._scene = self._answer(self._scene, action)
        return self._scene

    def __getstate__(self) -> dict[str, Any]:
        skipped = (*self.engine_attributes, "_scene", "_actions")
        attributes = {name: value for name, value in self.__dict__.items() if name not in skipped}
        return attributes | {"snapshot": self.get_state() if self._scene else None}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        snapshot = attributes.pop("snapshot")
        self.__dict__.update(attributes)
        if snapshot is not None:
            self.set_state(snapshot)
