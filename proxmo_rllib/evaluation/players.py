"""Playing a task in this process, without Ray: an expert, a random player, a policy, or a person.

A player answers messages with text. `play_task` is the whole loop; its episodes have no token ids, so nothing can be
learnt from them, but everything can be counted.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from env_wrappers.panels import Panel
from proxmo_rllib.evaluation.contest import Attempt, OnEpisode
from proxmo_rllib.evaluation.names import EXPERT, RANDOM, SCRIPTS
from proxmo_rllib.inference.engine import Engine
from proxmo_rllib.rollouts.agents import RandomScript, Script
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.environments import make_text_env
from proxmo_rllib.types import Episode, SamplingParams, Status, Turn

# Players that solve tasks as an agent must, from the observations; made with a random.Random.
EXPERTS: Mapping[str, str] = {
    "env_wrappers/ALFWorld-v0": "env_wrappers.alfworld.expert:SearchingExpert",
    "env_wrappers/TextCraft-v0": "env_wrappers.textcraft.experts:ReadingCrafter",
    "env_wrappers/WebShop-v0": "env_wrappers.webshop.experts:ReadingShopper",
}

_NO_TOKENS = np.zeros(0, dtype=np.int32)
_NO_LOGPROBS = np.zeros(0, dtype=np.float32)


class Player(Protocol):
    """Answers the messages of one episode."""

    def respond(self, message: str, info: Mapping[str, Any]) -> str:
        """The response to a message; `info` is the environment's, with the bare observation as `anchor`."""


class ScriptPlayer:
    """A script, in the response format that the action parser reads.

    Args:
        script: chooses the actions.
        style: of the responses, "bare" or "tagged".
    """

    def __init__(self, script: Script, style: str) -> None:
        self._script = script
        self._style = style
        self._started = False

    def respond(self, message: str, info: Mapping[str, Any]) -> str:
        if not self._started:
            self._script.reset(info["anchor"], dict(info))
            self._started = True
        action = self._script.act(info["anchor"], dict(info))
        return action if self._style == "bare" else f"<think></think><action>{action}</action>"


class PolicyPlayer:
    """A language model in this process.

    Args:
        engine: samples.
        chat: its chat template, taken apart.
        append: whether the conversation is append-only.
        temperature: of sampling; 0 is greedy.
        max_tokens: of a response.
        max_prompt_tokens: a longer prompt ends the episode.
        seed: of sampling; advanced by one every turn.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat,
        *,
        append: bool,
        temperature: float,
        max_tokens: int,
        max_prompt_tokens: int,
        seed: int,
    ) -> None:
        self._engine = engine
        self._chat = chat
        self._conversation = Conversation(chat, append=append)
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._max_prompt_tokens = max_prompt_tokens
        self._seed = seed
        self._loop = asyncio.new_event_loop()

    def respond(self, message: str, info: Mapping[str, Any]) -> str:
        self._conversation.say(message)
        prompt = self._conversation.token_ids
        if len(prompt) > self._max_prompt_tokens:
            raise ContextFull(f"the prompt has {len(prompt)} tokens, and there is room for {self._max_prompt_tokens}")
        params = SamplingParams(self._temperature, self._max_tokens, self._chat.stop_token_ids, self._seed)
        self._seed += 1
        # Always the same loop: the engine may keep a task on it.
        completion = self._loop.run_until_complete(self._engine.generate(prompt, params))
        self._conversation.reply(completion.token_ids)
        return self._chat.read(self._chat.decode_response(completion.token_ids))


class ContextFull(Exception):
    """The conversation has outgrown the model's context."""


class PlanScript:
    """Does what an environment's `plan()` says, which may know more than an agent can.

    Args:
        env: bare (`env.unwrapped`); the plan is asked for after its reset.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._plan: Iterator[str] = iter(())

    def reset(self, observation: str, info: dict[str, Any]) -> None:
        self._plan = iter(self._env.plan())

    def act(self, observation: str, info: dict[str, Any]) -> str:
        # A plan that is over has solved the task, unless the engine that made it was wrong: then anything goes on.
        return next(self._plan, info["admissible_actions"][0])


def make_script(name: str, env: gymnasium.Env[str, str], rng: random.Random) -> Script:
    """A scripted player for an environment.

    Args:
        name: "random", or "expert": one that knows only what it has read, where there is one (`EXPERTS`), or else the
            environment's own `plan()`.
        env: that it will play, wrapped or not.
        rng: draws its choices.

    Raises:
        ValueError: there is none of that name, or the environment has no expert.
    """
    if name == RANDOM:
        return RandomScript(rng)
    if name != EXPERT:
        raise ValueError(f"{name!r} is no scripted player: choose {' or '.join(map(repr, SCRIPTS))}.")
    env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    if env_id in EXPERTS:
        module, _, attribute = EXPERTS[env_id].partition(":")
        script: Script = getattr(importlib.import_module(module), attribute)(rng)
        return script
    if hasattr(env.unwrapped, "plan"):
        return PlanScript(env.unwrapped)
    raise ValueError(
        f"expert: {env_id} has none. Give the environment a method `plan()` that returns the actions which "
        "solve the running task, or take 'random'."
    )


def play_task(
    env: gymnasium.Env[str, str],
    player: Player,
    *,
    task: str,
    seed: int,
    max_turns: int,
    group_id: str = "",
    index: int = 0,
    watch: Callable[[Turn, Mapping[str, Any]], None] = lambda turn, info: None,
) -> Episode:
    """Plays one episode.

    Args:
        env: inside its prompting wrappers.
        player: answers.
        task: id of the task; empty for the environment's choice.
        seed: of the environment's reset.
        max_turns: turns after which it is truncated.
        group_id: of the episode.
        index: place in its group.
        watch: is told every turn, with the info that came of it.
    """
    message, info = env.reset(seed=seed, options={"task": task} if task else None)
    turns: list[Turn] = []
    status = Status.TRUNCATED
    while len(turns) < max_turns:
        anchor = str(info["anchor"])
        try:
            response = player.respond(message, info)
        except ContextFull:
            break
        message, reward, terminated, truncated, info = env.step(response)
        turn = Turn(
            context_ids=_NO_TOKENS,
            appended=False,
            response_ids=_NO_TOKENS,
            logprobs=_NO_LOGPROBS,
            policy_version=0,
            anchor=anchor,
            response=response,
            action=str(info["action"]),
            action_valid=bool(info["action_valid"]),
            reward=float(reward),
        )
        turns.append(turn)
        watch(turn, info)
        if info.get("success"):
            status = Status.SUCCESS
            break
        if terminated or truncated:
            status = Status.FAILURE if terminated else Status.TRUNCATED
            break
    score = info.get("score")
    return Episode(
        episode_id=f"{group_id}-{index}",
        group_id=group_id,
        task=task or str(info.get("task", "")),
        task_type=str(info.get("task_type", "")),
        seed=seed,
        turns=tuple(turns),
        status=status,
        score=None if score is None else float(score),
    )


class ScriptOnPanel:
    """A scripted player of a panel. As in training an environment that raises ends its own episode only.

    Args:
        config: a ProxMOConfig, for prompting and limits; its policy is not read.
        panel: the tasks.
        name: "expert" or "random".
    """

    def __init__(self, config: Any, panel: Panel, name: str) -> None:
        self._config = config
        self._panel = panel
        self._name = name

    def play(self, attempts: Sequence[Attempt], on_episode: OnEpisode) -> None:
        """Plays one episode after the other; see `PanelPlayer`."""
        env = self._make()
        for attempt in attempts:
            assignment = attempt.assignment(self._panel)
            rng = random.Random(f"script-{assignment.group_id}-{assignment.seed}-0")
            try:
                episode = play_task(
                    env,
                    ScriptPlayer(make_script(self._name, env, rng), self._config.response_style),
                    task=assignment.task,
                    seed=assignment.seed,
                    max_turns=self._config.max_turns,
                    group_id=assignment.group_id,
                )
            except Exception as error:  # noqa: BLE001 (whatever an environment raises)
                episode = Episode.broken(assignment, 0, f"{type(error).__name__}: {error}")
                env = self._make()
            on_episode(attempt, episode)
        env.close()

    def _make(self) -> gymnasium.Env[str, str]:
        return make_text_env(self._config, self._panel.env_id, dict(self._panel.env_kwargs))
