"""An OpenEnv server as a text environment of this project, to play and to train on; for openenv 0.10.

    proxmo play proxmo_rllib.integrations.openenv_client:OpenEnvTextEnv env_config.base_url=http://127.0.0.1:8000

Servers of `openenv_server` need no more than their address. For others say which field of the action takes the text,
which field of the observation has it, and when a task is solved.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium

from env_wrappers.contract import whole_text
from env_wrappers.core import AnyText
from proxmo_rllib.integrations.packages import require

VERSIONS = ">=0.10,<0.11"
INSTALL = 'pip install "proxmo_rllib[openenv]"'
_SECONDS = 60.0
_TEXTS = ("task", "task_type", "goal")


class OpenEnvTextEnv(gymnasium.Env[str, str]):
    """Plays on a server. Each instance has a session of its own there.

    Args:
        base_url: of the server: "http://127.0.0.1:8000".
        action: field of the server's action that takes the text.
        observation: field of its observation that has the text.
        success: field of its observation that says whether the task is solved; or a number: solved when the episode
            has ended with at least this return.
        reset: arguments of every reset on the server, beside `seed` and `task`.
        name: the server's, in the addresses of its task lists; None if it has none, so that `reset` draws the task.
        seconds: after which a server that does not answer is an error.

    Raises:
        ModuleNotFoundError, ImportError: openenv is not installed, or another version.
        ConnectionError: no server answers there; while it plays, that it refused an action, or its field is missing.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "blocking": True, "thread_safe": True}  # type: ignore[misc]

    def __init__(
        self,
        base_url: str,
        *,
        action: str = "text",
        observation: str = "text",
        success: str | float = "success",
        reset: Mapping[str, Any] | None = None,
        name: str | None = "text",
        seconds: float = _SECONDS,
    ) -> None:
        core = require("openenv", VERSIONS, INSTALL, "openenv.core")
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._url = base_url.rstrip("/")
        self._action, self._observation, self._success = action, observation, success
        self._reset = dict(reset or {})
        self._name = name
        self._seconds = seconds
        self._client: Any = core.GenericEnvClient(
            base_url=self._url, connect_timeout_s=seconds, message_timeout_s=seconds
        ).sync()
        self._info: dict[str, Any] = {}
        self._return = 0.0
        self._over = False
        if name is not None:
            self.tasks = self._tasks

    def _tasks(self, split: str) -> list[str]:
        """Task ids of a split, as the server lists them.

        Raises:
            ValueError: the server has no such split, or no tasks at all.
            ConnectionError: it does not answer.
        """
        address = f"{self._url}/{self._name}/tasks"
        request = urllib.request.Request(
            address, json.dumps({"split": split}).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as answer:
                listed = json.load(answer)["tasks"]
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"{address}: {error}; split={split!r} is none of the server's, or it lists no tasks."
            ) from error
        except OSError as error:
            raise ConnectionError(f"{address}: {error}. Is the server running?") from error
        return [task["id"] if isinstance(task, dict) else str(task) for task in listed]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts a task on the server."""
        super().reset(seed=seed)
        asked = dict(self._reset)
        if seed is not None:
            asked["seed"] = seed
        if options and options.get("task"):
            asked["task"] = options["task"]
        self._return, self._over = 0.0, False
        result = self._ask("reset", **asked)
        self._info = {"task": asked.get("task", "")}
        return self._text(result), self._read(result)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action on the server."""
        result = self._ask("step", {self._action: whole_text(action)})
        reward = float(result.reward or 0.0)
        self._return += reward
        self._over = bool(result.done)
        return self._text(result), reward, self._over, False, self._read(result)

    def close(self) -> None:
        """Ends the session."""
        self._client.close()

    def _ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments, **keywords)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ConnectionError(f"{self._url}, {method}: {type(error).__name__}: {error}") from error

    def _text(self, result: Any) -> str:
        return str(self._field(result, self._observation, "observation"))

    def _read(self, result: Any) -> dict[str, Any]:
        seen = result.observation
        solved = (
            bool(self._field(result, self._success, "success"))
            if isinstance(self._success, str)
            else self._over and self._return >= self._success
        )
        self._info |= {key: str(seen[key]) for key in _TEXTS if seen.get(key)}
        return {**self._info, "success": solved, "admissible_actions": list(seen.get("admissible_actions") or ())}

    def _field(self, result: Any, name: str, argument: str) -> Any:
        if name not in result.observation:
            raise ConnectionError(
                f"{self._url}: its observations have no field {name!r}, they have {sorted(result.observation)}; say "
                f"which with {argument}=."
            )
        return result.observation[name]
