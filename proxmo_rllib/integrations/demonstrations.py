"""Recorded episodes as demonstrations: a script that plays them again, for a warm start.

```python
folder = "runs/quickstart-..."  # a run, or a folder of `datasets` that write_record made one of
config.environment(DemonstratedTasks, env_config={"env": "env_wrappers/ALFWorld-v0", "record": folder})
config.imitation(scripts=[(0, partial(Demonstrations, record=folder))])
```
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from proxmo_rllib.integrations.text_envs import bare_env
from proxmo_rllib.json_lines import read_episode
from proxmo_rllib.record_file import record_lines, record_of

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class Demonstrations:
    """A script (`rollouts.agents.Script`) that says what a recorded, solved episode of its task said.

    Args:
        rng: chooses among the episodes of a task.
        record: a run's folder, or the file of its record.

    Raises:
        ValueError: there is no record, or none of its episodes is solved; while it plays, a task without one, or an
            environment that answers otherwise than it did.
    """

    def __init__(self, rng: random.Random, record: str | Path) -> None:
        self._rng = rng
        self._record = str(record)
        self._solved = solved_episodes(self._record)
        self._turns: list[Mapping[str, Any]] = []
        self._next = 0
        self.thought: str | None = None

    def reset(self, observation: str, info: dict[str, Any]) -> None:
        """Chooses an episode of the task."""
        task = info["task"]
        if task not in self._solved:
            raise ValueError(
                f"{self._record} has no solved episode of task {task!r}; play DemonstratedTasks, which has no other."
            )
        self._turns = self._rng.choice(self._solved[task])
        self._next = 0

    def act(self, observation: str, info: dict[str, Any]) -> str:
        """The action of the next turn; what was thought before it is `thought`."""
        turn = self._turns[self._next] if self._next < len(self._turns) else None
        if turn is None or turn["observation"] != observation:
            expected = "the end" if turn is None else repr(turn["observation"])
            raise ValueError(
                f"{self._record}, task {info['task']!r}, turn {self._next}: the environment says {observation!r:.200}, "
                f"and in the record it said {expected:.200}; play it with the settings of the recorded run."
            )
        self._next += 1
        found = _THOUGHT.search(turn["response"])
        self.thought = found[1].strip() if found else None
        return str(turn["action"])


class DemonstratedTasks(gymnasium.Wrapper[str, str, str, str]):
    """An environment that has no tasks but those with a demonstration.

    Args:
        env: the environment: an id, a class, a function, or "module:Name".
        record: as of `Demonstrations`.
        **env_config: arguments of the environment.

    Raises:
        ValueError: as `Demonstrations`; there is no such environment.
    """

    def __init__(self, env: Any, record: str | Path, **env_config: Any) -> None:
        super().__init__(bare_env(env, env_config))
        self._tasks = list(solved_episodes(str(record)))

    @property
    def unwrapped(self) -> Any:
        """Itself, since it is asked for its tasks."""
        return self

    def tasks(self, split: str) -> list[str]:
        """The demonstrated tasks of a split, in the environment's order."""
        bare: Any = self.env.unwrapped
        known = set(self._tasks)
        return [task for task in bare.tasks(split) if task in known]


@functools.lru_cache(maxsize=4)
def solved_episodes(record: str) -> dict[str, list[list[Mapping[str, Any]]]]:
    """Turns of the solved episodes of a record, by task. Errors as of `Demonstrations`."""
    path = record_of(Path(record))
    found: dict[str, list[list[Mapping[str, Any]]]] = {}
    for number, line in enumerate(record_lines(path), start=1):
        episode = read_episode(line, f"{path}, line {number}")
        if episode["status"] == "success":
            found.setdefault(episode["task"], []).append(episode["turns"])
    if not found:
        raise ValueError(f"{path}: none of its episodes is solved, so there is nothing to imitate.")
    return found
