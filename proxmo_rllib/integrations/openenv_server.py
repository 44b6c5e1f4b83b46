"""A text environment as an OpenEnv server; for openenv 0.10.

    python -m proxmo_rllib.integrations.openenv_server env_wrappers/TextCraft-v0 --port 8000

It listens on this machine alone unless `--host` says otherwise, and asks nobody for a password: see SECURITY.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from proxmo_rllib.integrations.packages import require
from proxmo_rllib.integrations.text_envs import bare_env

VERSIONS = ">=0.10,<0.11"
INSTALL = 'pip install "proxmo_rllib[openenv]"'

_core: Any = require("openenv", VERSIONS, INSTALL, "openenv.core.env_server")


class TextAction(_core.Action):  # type: ignore[misc]
    """What the agent does, in the environment's words."""

    text: str


class TextObservation(_core.Observation):  # type: ignore[misc]
    """What the environment says, and what this project's contract has beside it.

    `success` is that of the episode so far: a reward may be shaped, and an end may be a failure.
    """

    text: str
    success: bool = False
    admissible_actions: list[str] = []
    task: str = ""
    task_type: str = ""
    goal: str = ""


class TextEnvironment(_core.Environment):  # type: ignore[misc]
    """A text environment, one instance a session.

    Args:
        env: a Gymnasium id, a class, a function, or "module:Name" of one.
        env_config: its arguments.

    Raises:
        ValueError: there is no such environment.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env: Any, env_config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._env = bare_env(env, env_config)
        self._state = _core.State()

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task: str | None = None, **options: Any
    ) -> TextObservation:
        """Starts a task: that of the id `task`, or number `index` of the split `split`, or one drawn with `seed`."""
        if task is None and "index" in options:
            task = self.get_task(options.get("split", "train"), options["index"])["id"]
        text, info = self._env.reset(seed=seed, options={"task": task} if task else None)
        self._state = _core.State(episode_id=episode_id)
        return _observation(text, info)

    def step(self, action: TextAction, timeout_s: float | None = None, **_: Any) -> TextObservation:
        """One action."""
        text, reward, terminated, truncated, info = self._env.step(action.text)
        self._state.step_count += 1
        return _observation(text, info, reward=float(reward), done=bool(terminated or truncated))

    @property
    def state(self) -> Any:
        """Id of the episode and number of its steps."""
        return self._state

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def list_splits(self) -> list[str]:
        """The splits that have tasks."""
        return list(getattr(self._env.unwrapped, "splits", ("train",)))

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Id and number of each task of a split. Raises IndexError for no such split; the client gets 400."""
        bare: Any = self._env.unwrapped
        try:
            tasks = bare.tasks(split)
        except ValueError as error:
            raise IndexError(str(error)) from error
        return [{"id": task, "index": index} for index, task in enumerate(tasks)]

    def num_tasks(self, split: str) -> int:
        """How many tasks a split has."""
        return len(self.list_tasks(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """One task. Raises IndexError, which the server answers with 400."""
        return self.list_tasks(split)[index]

    def get_task_range(self, split: str, start: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        """Tasks from `start` on, before `stop`."""
        return self.list_tasks(split)[slice(start, stop)]


def make_app(env: Any, env_config: Mapping[str, Any] | None = None, *, sessions: int = 64, name: str = "text") -> Any:
    """The server as a FastAPI application.

    Args:
        env: as of `TextEnvironment`.
        env_config: its arguments.
        sessions: that play at once at most, each with an environment of its own.
        name: in the addresses of the task lists: `/NAME/tasks`.

    Raises:
        ValueError: there is no such environment.
    """
    bare_env(env, env_config).close()  # so that what is wrong is said now, and not to the first client
    make = partial(TextEnvironment, env, env_config)
    return _core.create_fastapi_app(make, TextAction, TextObservation, max_concurrent_envs=sessions, env_name=name)


def _observation(text: str, info: Mapping[str, Any], **outcome: Any) -> TextObservation:
    known = {key: info[key] for key in ("task", "task_type", "goal") if info.get(key) is not None}
    actions = list(info.get("admissible_actions") or ())
    return TextObservation(text=text, success=bool(info["success"]), admissible_actions=actions, **known, **outcome)


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C; see the module's docstring."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m proxmo_rllib.integrations.openenv_server")
    parser.add_argument("env", metavar="ENV_ID|MODULE:NAME")
    parser.add_argument(
        "--env-config", type=json.loads, default={}, metavar="JSON", help="arguments of the environment"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--sessions", type=int, default=64, help="that play at once at most")
    arguments = parser.parse_args(argv)
    try:
        app = make_app(arguments.env, arguments.env_config, sessions=arguments.sessions)
    except ValueError as error:
        parser.error(str(error))
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
