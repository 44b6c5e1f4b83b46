"""Text environments of this project as a taskset and environment of verifiers; for verifiers 0.4.

verifiers finds a taskset by the name of a module. Make one, `proxmo_text.py`, and name it by `proxmo-text`:

```python
from proxmo_rllib.integrations.verifiers_env import TextEnv, TextTaskset

__all__ = ["TextEnv", "TextTaskset"]
```
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from env_wrappers.prompting import wrap
from proxmo_rllib.integrations.packages import require
from proxmo_rllib.integrations.text_envs import bare_env

VERSIONS = ">=0.4,<0.5"
INSTALL = 'pip install "proxmo_rllib[verifiers]"'

vf: Any = require("verifiers", VERSIONS, INSTALL, "verifiers.v1")


class TextData(vf.TaskData):  # type: ignore[misc]
    """One task: what it takes to begin it again."""

    env: str
    env_config: dict[str, Any]
    prompting: dict[str, Any]
    task: str


class TextTask(vf.Task[TextData]):  # type: ignore[misc]
    """A task of a text environment; the environment itself scores it."""


class TextTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which tasks.

    Attributes:
        env: a Gymnasium id, or "module:Name" of a class or function.
        env_config: its arguments.
        split: whose tasks are played.
        prompting: of `env_wrappers.prompting.wrap`: template, style, show_admissible.
    """

    env: str = "env_wrappers/TextCraft-v0"
    env_config: dict[str, Any] = {}
    split: str = "train"
    prompting: dict[str, Any] = {}


class TextTaskset(vf.Taskset[TextTask, TextTasksetConfig]):  # type: ignore[misc]
    """The tasks of a split, in the environment's order."""

    def load(self) -> Iterator[TextTask]:
        """Yields them.

        Raises:
            ValueError: there is no such environment or split; `history` is asked for, which a conversation cannot have.
        """
        config = self.config
        if config.prompting.get("history") is not None:
            raise ValueError(
                f"prompting={config.prompting!r}: a conversation of verifiers holds all turns; leave history out."
            )
        bare: Any = bare_env(config.env, config.env_config).unwrapped
        tasks = bare.tasks(config.split)
        bare.close()
        for task in tasks:
            data = TextData(
                name=task, env=config.env, env_config=config.env_config, prompting=config.prompting, task=task
            )
            yield TextTask(data, config.task)


class TextEnvConfig(vf.EnvConfig):  # type: ignore[misc]
    """How it is played.

    Attributes:
        player: the agent: by default one that talks, in a process on this machine, since it runs no commands.
        max_turns: after which an episode ends unsolved.
        seed: of the environment's reset.
    """

    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})
    max_turns: int = 50
    seed: int = 0


class TextEnv(vf.Env[TextEnvConfig]):  # type: ignore[misc]
    """The environment plays the user: what it says is the user's message, and the reply is parsed for the action."""

    async def run(self, task: Any, agents: Any) -> None:
        """One episode. Its trace has the reward `episode_return`, the metrics `success` and `turns`, and `played`.

        `trace.info["played"]` has what `PlayedEpisode` takes, for advantages.
        """
        data = task.data
        env = wrap(bare_env(data.env, data.env_config), **data.prompting)
        message, info = env.reset(seed=self.config.seed, options={"task": data.task})
        played: dict[str, Any] = {"group": data.task, "success": False, "observations": [], "rewards": [], "valid": []}
        async with agents.player.interaction(task) as interaction:
            for _ in range(self.config.max_turns):
                segment = await interaction.turn(message)
                if segment.terminated:
                    break
                played["observations"].append(info["anchor"])
                message, reward, terminated, truncated, info = env.step(segment.last_reply)
                played["rewards"].append(float(reward))
                played["valid"].append(bool(info["action_valid"]))
                if terminated or truncated or info["success"]:
                    break
        played["success"] = bool(info["success"])
        env.close()
        trace = interaction.trace
        trace.record_reward("episode_return", float(sum(played["rewards"])))
        trace.record_metrics({"success": float(played["success"]), "turns": float(len(played["rewards"]))})
        trace.info["played"] = played
