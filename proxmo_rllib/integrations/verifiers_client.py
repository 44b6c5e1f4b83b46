"""An environment of verifiers as a text environment of this project; for verifiers 0.4.

    proxmo play proxmo_rllib.integrations.verifiers_client:VerifiersTextEnv env_config.taskset=my-taskset

An environment of verifiers says what happens in `run(task, agents)`, and asks its agents for replies. Here `reset` runs
it up to the first question, `step` answers and runs it to the next, and nothing else of verifiers' machinery is
started: no endpoint, no harness, no runtime. So it fits environments that talk to one agent in text; those whose agent
needs tools, files or commands are refused.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import gymnasium

from env_wrappers.contract import whole_text
from env_wrappers.core import AnyText
from proxmo_rllib.integrations.packages import require

VERSIONS = ">=0.4,<0.5"
INSTALL = 'pip install "proxmo_rllib[verifiers]"'


class VerifiersTextEnv(gymnasium.Env[str, str]):
    """Plays the tasks of a taskset. The reward comes with the end: verifiers scores whole conversations.

    Args:
        taskset: its id, the name of the module that exports it.
        taskset_config: its settings.
        env: id of an environment to pair it with; empty for the taskset's own.
        env_config: settings of the environment.
        num_tasks: how many tasks are read, and must be given where a taskset never ends.
        valid: how many of them, the last ones, are the split "valid"; the others are "train".
        solved_at: reward from which on an episode counts as solved.

    Raises:
        ModuleNotFoundError, ImportError: verifiers is not installed, or another version.
        ValueError: there is no such taskset; it needs what is not here, such as tools.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "blocking": True, "thread_safe": True}  # type: ignore[misc]

    def __init__(
        self,
        taskset: str,
        *,
        taskset_config: Mapping[str, Any] | None = None,
        env: str = "",
        env_config: Mapping[str, Any] | None = None,
        num_tasks: int | None = None,
        valid: int = 0,
        solved_at: float = 1.0,
    ) -> None:
        vf = require("verifiers", VERSIONS, INSTALL, "verifiers.v1")
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._loop: asyncio.AbstractEventLoop | None = None
        settings = {**(env_config or {}), "id": env, "taskset": {**(taskset_config or {}), "id": taskset}}
        try:
            self._env = vf.load_environment(vf.env_config_type(taskset, env).model_validate(settings))
        except (ModuleNotFoundError, AttributeError, TypeError) as error:
            raise ValueError(f"taskset={taskset!r}, env={env!r}: {error}") from error
        rows = self._env.taskset
        if num_tasks is None and not rows.bounded:
            raise ValueError(f"taskset={taskset!r} never ends; say how many tasks to read with num_tasks=.")
        self._tasks = {_name(task): task for task in itertools.islice(rows, num_tasks)}
        if not 0 <= valid < len(self._tasks):
            raise ValueError(f"valid={valid}: the taskset has {len(self._tasks)} tasks, and training needs some.")
        self._held_out = valid
        self._solved_at = solved_at
        self._solved = False
        _refuse_what_needs_more(taskset, rows, next(iter(self._tasks.values())))

    def tasks(self, split: str) -> list[str]:
        """Task ids of "train" or "valid"."""
        ids = list(self._tasks)
        border = len(ids) - self._held_out
        splits = {"train": ids[:border], "valid": ids[border:]}
        if not splits.get(split):
            raise ValueError(f"split={split!r}: there is 'train', and 'valid' where valid= says how many tasks it has.")
        return splits[split]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Runs a task up to the first question."""
        super().reset(seed=seed)
        asked = (options or {}).get("task") or str(self.np_random.choice(self.tasks("train")))
        if asked not in self._tasks:
            raise ValueError(f"task={asked!r} is none of tasks('train') or tasks('valid').")
        self._abandon()
        self._task = asked
        self._loop = asyncio.new_event_loop()
        self._exchange = _Exchange()
        self._episode = self._loop.create_task(self._play())
        self._said = self._loop.run_until_complete(self._exchange.question(self._episode)) or ""
        if self._episode.done():
            self._episode.result()
            raise ValueError(f"{type(self._env).__name__}, task {asked!r}: it ended without asking its agent anything.")
        return self._said, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answers, and runs the task to the next question or its end."""
        if self._loop is None or self._episode.done():
            return self._said, 0.0, True, False, self._info()
        self._exchange.reply(whole_text(action))  # half an emoji has no encoding, and verifiers hashes what is said
        question = self._loop.run_until_complete(self._exchange.question(self._episode))
        if question is not None:
            self._said = question
            return question, 0.0, False, False, self._info()
        reward = float(self._episode.result())
        self._solved = reward >= self._solved_at
        return self._said, reward, True, False, self._info()

    def close(self) -> None:
        """Ends the running task."""
        self._abandon()

    def _info(self) -> dict[str, Any]:
        data = self._tasks[self._task].data
        return {
            "success": self._solved,
            "task": self._task,
            "task_type": type(self._tasks[self._task]).__name__,
            "goal": data.description or data.prompt_text,
            "admissible_actions": [],
        }

    async def _play(self) -> float:
        """The whole episode, as `Env.run_episode` has it; returns its reward."""
        import verifiers.v1 as vf

        task = self._tasks[self._task]
        agents = _Agents(self._env.config, self._exchange)
        await self._env.setup(agents)
        await self._env.run(task, agents)
        episode = vf.Episode(env=vf.EnvInfo(id=self._env.config.env_id), task=_trace_task(task), traces=agents.traces)
        await self._env.finalize(task, episode)
        return float(sum(trace.reward for trace in agents.traces))

    def _abandon(self) -> None:
        if self._loop is None:
            return
        self._solved = False
        self._episode.cancel()
        self._loop.run_until_complete(asyncio.gather(self._episode, return_exceptions=True))
        self._loop.close()
        self._loop = None


class _Exchange:
    """Questions one way, replies the other."""

    def __init__(self) -> None:
        self._questions: asyncio.Queue[str] = asyncio.Queue()
        self._replies: asyncio.Queue[str] = asyncio.Queue()

    async def ask(self, text: str) -> str:
        self._questions.put_nowait(text)
        return await self._replies.get()

    def reply(self, text: str) -> None:
        self._replies.put_nowait(text)

    async def question(self, episode: asyncio.Task[Any]) -> str | None:
        """The next question; None if the episode has ended before another."""
        asked = asyncio.ensure_future(self._questions.get())
        await asyncio.wait({asked, episode}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
        asked.cancel()
        return None


class _Agents:
    """The agents of an environment; all but one are refused when they are asked for something."""

    def __init__(self, config: Any, exchange: _Exchange) -> None:
        from verifiers.v1.configs.agent import agent_config_fields

        self._seats = {name: _Seat(name, agent, exchange, self) for name, agent in agent_config_fields(config).items()}
        self.traces: list[Any] = []
        self.playing: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._seats:
            raise AttributeError(f"no agent {name!r}; this environment has {sorted(self._seats)}")
        return self._seats[name]


class _Seat:
    """An agent that passes on what it is asked."""

    trainable = True

    def __init__(self, name: str, config: Any, exchange: _Exchange, agents: _Agents) -> None:
        self._name, self._config, self._exchange, self._agents = name, config, exchange, agents

    async def run(self, task: Any, **_: Any) -> Any:
        async with self.interaction(task) as interaction:
            await interaction.turn(None if task.data.prompt is not None else "")
        return interaction.trace

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncIterator[_Interaction]:
        if self._agents.playing not in (None, self._name):
            raise ValueError(
                f"the environment talks to {self._agents.playing!r} and {self._name!r}; this plays environments of one "
                "agent."
            )
        self._agents.playing = self._name
        interaction = _Interaction(self._name, self._config, task, self._exchange)
        yield interaction
        await task.score(interaction.trace)
        self._agents.traces.append(interaction.trace)


class _Interaction:
    """One conversation, recorded in a trace as verifiers records it, so that its tasks can score it."""

    def __init__(self, name: str, config: Any, task: Any, exchange: _Exchange) -> None:
        import verifiers.v1 as vf
        from verifiers.v1.state import state_cls

        self._exchange = exchange
        self.trace: Any = vf.Trace(
            task=_trace_task(task), state=state_cls(type(task))(), agent=vf.AgentInfo(config=config, name=name)
        )
        system = task.data.system_prompt
        self._messages: list[Any] = [vf.SystemMessage(content=system)] if system else []
        self._prompt = task.data.prompt

    async def turn(self, message: Any = None) -> Any:
        import verifiers.v1 as vf
        from verifiers.v1.agent import Segment
        from verifiers.v1.graph import prepare_turn

        said = self._prompt if message is None else message
        new = [vf.UserMessage(content=said)] if isinstance(said, str) else list(said or ())
        if not new:
            raise ValueError("the environment asks its agent without a prompt and without a message")
        opening = self._messages if len(self.trace.nodes) == 0 else []
        self._messages = [*self._messages, *new]
        reply = await self._exchange.ask("\n\n".join(_text(one) for one in [*opening, *new]))
        answer = vf.AssistantMessage(content=reply)
        pending = prepare_turn(self.trace, self._messages)
        pending.commit(vf.Response(id="", created=int(time.time()), model="", message=answer, finish_reason="stop"))
        self._messages = [*self._messages, answer]
        return Segment(messages=[answer], root_reply=reply)


def _trace_task(task: Any) -> Any:
    import verifiers.v1 as vf

    return vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)


def _text(message: Any) -> str:
    content = message["content"] if isinstance(message, dict) else message.content
    if isinstance(content, str):
        return content
    parts = [getattr(part, "text", None) for part in content or ()]
    if None in parts:
        raise ValueError("the environment shows its agent something else than text")
    return "\n".join(str(part) for part in parts)


def _name(task: Any) -> str:
    return task.data.name or task.data.id or str(task.data.idx)


def _refuse_what_needs_more(taskset: str, rows: Any, task: Any) -> None:
    import verifiers.v1 as vf

    kind = type(task)
    needs = []
    if type(rows).toolsets(rows.config) or kind.toolsets(rows.config.task):
        needs.append("tools")
    needs += [
        f"a runtime ({hook})" for hook in ("setup", "finalize") if getattr(kind, hook) is not getattr(vf.Task, hook)
    ]
    if task.data.image:
        needs.append(f"the image {task.data.image}")
    if needs:
        raise ValueError(
            f"taskset={taskset!r} needs {', '.join(needs)}, which is not here: it plays what talks to one agent "
            "in text. Play this with verifiers itself."
        )
