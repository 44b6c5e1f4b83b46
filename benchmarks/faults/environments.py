"""An environment that does what a user's may do to a run, in one of its tasks; in the others it behaves.

It needs Gymnasium alone, as a user's own does. The plain game is short, slow enough that a kill finds the playing
phase, and solved or not by what the policy happens to say.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gymnasium

from env_wrappers.core import AnyText

NUM_TASKS = 8
BROKEN_TASK = "train-3"
TURNS = 4
Step = tuple[Any, ...]  # as `step` returns it, or as it should not

_leaked: list[bytearray] = []  # of this process


class FaultyEnv(gymnasium.Env[str, str]):
    """A task ends after four turns; the letters of the last action decide whether it is solved.

    Args:
        fault: a name in `FAULTS`, which happens in the second turn of `BROKEN_TASK`, or at its reset; "none" for never.
        blocking: whether a rollout is to call it in a thread.
        step_s: seconds that a step takes; 0 for one that does not block.
    """

    def __init__(self, fault: str = "none", blocking: bool = True, step_s: float = 0.3) -> None:
        if fault != "none" and fault not in FAULTS:
            raise ValueError(f"fault={fault!r}: it is one of none, {', '.join(FAULTS)}.")
        self.metadata = {"render_modes": [], "blocking": blocking}
        self.observation_space = self.action_space = AnyText()
        self.fault = fault
        self.step_s = step_s if blocking else 0.0

    def tasks(self, split: str) -> list[str]:
        """Ids of the split's tasks."""
        return [f"{split}-{index}" for index in range(NUM_TASKS)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """Begins the task; that of `BROKEN_TASK` never returns with the fault "hang-in-reset"."""
        super().reset(seed=seed)
        self.task = str((options or {}).get("task") or "train-0")
        self.turn = 0
        if self.task == BROKEN_TASK and self.fault == "hang-in-reset":
            hang()
        return f"You are in room {self.task}. There is a door.", self._info(False)

    def step(self, action: str) -> Any:
        """One turn."""
        self.turn += 1
        time.sleep(self.step_s)
        if self.task == BROKEN_TASK and self.turn == 2 and self.fault in FAULTS:
            answer = FAULTS[self.fault]()
            if answer is not None:
                return answer
        over = self.turn == TURNS
        solved = over and sum(action.encode("utf-8", "replace")) % 3 == 0
        return f"Nothing happens. You waited {self.turn} times.", float(solved), over, False, self._info(solved)

    def _info(self, success: bool) -> dict[str, Any]:
        return {"success": success, "task": self.task, "task_type": "wait", "goal": "wait", "admissible_actions": []}


def hang() -> None:
    """Waits for what never comes."""
    threading.Event().wait()


def leak() -> None:
    """Keeps 20 MB of touched memory a call, up to 400 MB a process."""
    if len(_leaked) < 20:
        _leaked.append(bytearray(os.urandom(1 << 20) * 20))


def fail() -> None:
    """As a bug in somebody's game."""
    raise KeyError("the third door")


def _answer(observation: Any = "A room.", reward: Any = 0.0, success: Any = False, **info: Any) -> Step:
    return observation, reward, False, False, {"success": success, "task": BROKEN_TASK} | info


#: What happens instead of a step, by name; None: the step goes on as usual afterwards.
FAULTS: dict[str, Callable[[], Step | None]] = {
    "raise": fail,
    "hang-in-step": hang,
    "hang-in-reset": lambda: None,  # see `reset`
    "sys-exit": lambda: sys.exit(3),
    "os-exit": lambda: os._exit(3),
    "leak": leak,
    "number-for-text": lambda: _answer(observation=42),
    "text-for-reward": lambda: _answer(reward="1/2"),
    "nan-reward": lambda: _answer(reward=float("nan")),
    "text-for-success": lambda: _answer(success="False"),
    "text-for-score": lambda: _answer(score="1/2"),
    "no-info": lambda: ("A room.", 0.0, False, False, None),
    "too-short": lambda: ("A room.", 0.0),
    "half-an-emoji": lambda: _answer(observation="A smile: \ud83d"),
    "100-mb-text": lambda: _answer(observation="door " * 20_000_000),
}
