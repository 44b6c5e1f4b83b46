"""Text environments of this project for TRL's `rollout_func`; for trl 1.16, whose `_generate_single_turn` it uses.

The prompts of the dataset are task ids. What the policy reads, and how its action is found in what it says, is as in
this project's own rollouts: the same chat format, templates and parser. The sampled ids are the ids of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

import env_wrappers  # noqa: F401 (registers its environments with Gymnasium)
from env_wrappers.prompting import wrap
from proxmo_rllib.integrations.credit import PlayedEpisode
from proxmo_rllib.integrations.text_envs import bare_env
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation


class TextEnvRollout:
    """Plays one episode for every prompt, all of a batch at once.

    `max_completion_length` of GRPOConfig is the limit of one turn's response. A conversation that the model's context
    cannot hold ends there, unsolved.

    Args:
        env: a Gymnasium id, a class, a function, or "module:Name" of one.
        max_turns: after which an episode ends unsolved.
        env_config: arguments of the environment.
        system_message: before the first message.
        seed: of the environments' resets; every episode of a task begins alike.
        **prompting: of `env_wrappers.prompting.wrap`: template, style, show_admissible, invalid_action_penalty.

    Raises:
        ValueError: there is no such environment, or `history` is given: TRL's completion is one sequence.
    """

    def __init__(
        self,
        env: Any,
        *,
        max_turns: int,
        env_config: Mapping[str, Any] | None = None,
        system_message: str | None = None,
        seed: int = 0,
        **prompting: Any,
    ) -> None:
        if prompting.get("history") is not None:
            raise ValueError(
                f"history={prompting['history']!r}: TRL trains on a prompt and what follows it, so the conversation "
                "only grows; leave history out."
            )
        if max_turns < 1:
            raise ValueError(f"max_turns={max_turns}: an episode has at least 1 turn.")
        self._make = lambda: wrap(bare_env(env, env_config), **prompting)
        self._max_turns = max_turns
        self._system = system_message
        self._seed = seed
        self._pool: list[gymnasium.Env[str, str]] = [self._make()]
        self._chat: ChatFormat | None = None

    def tasks(self, split: str = "train") -> list[str]:
        """Task ids of a split: what the dataset's column `prompt` holds."""
        bare: Any = self._pool[0].unwrapped
        return list(bare.tasks(split))

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Plays.

        Args:
            prompts: a task id for each episode.
            trainer: TRL's, whose policy plays.

        Returns:
            What TRL asks for (`prompt_ids`, `completion_ids`, `logprobs`, `env_mask`), and `played`.
        """
        chat = self._chat = self._chat or ChatFormat.from_tokenizer(trainer.processing_class, self._system)
        self._pool += [self._make() for _ in range(len(prompts) - len(self._pool))]
        games = [
            _Game.begin(env, chat, _task_of(prompt), self._seed)
            for env, prompt in zip(self._pool, prompts, strict=False)
        ]
        room = _positions(trainer) - trainer.max_completion_length
        for game in games:
            if len(game.ids) > room:
                raise ValueError(
                    f"The first prompt of task {game.task!r} has {len(game.ids)} tokens, and the context leaves "
                    f"room for {room} beside max_completion_length={trainer.max_completion_length}; lower that, or "
                    "shorten the prompt."
                )
        for _ in range(self._max_turns):
            playing = [game for game in games if not game.over and len(game.ids) <= room]
            if not playing:
                break
            for game, ids, logprobs in zip(playing, *_sample(trainer, [game.ids for game in playing]), strict=True):
                game.say(ids, logprobs)
        with_logprobs = all(game.logprobs is not None for game in games)
        return {
            "prompt_ids": [game.prompt for game in games],
            "completion_ids": [game.completion for game in games],
            "logprobs": [game.logprobs for game in games] if with_logprobs else None,
            "env_mask": [game.mask for game in games],
            "played": [game.played for game in games],
        }


@dataclass(slots=True)
class _Game:
    """An episode that is being played."""

    env: gymnasium.Env[str, str]
    chat: ChatFormat
    conversation: Conversation
    task: str
    anchor: str
    prompt: list[int]
    over: bool = False
    success: bool = False
    completion: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    turns: list[tuple[str, float, bool]] = field(default_factory=list)  # observation, reward, valid
    context: list[int] = field(default_factory=list)  # what the environment said since, not yet in the completion

    @classmethod
    def begin(cls, env: gymnasium.Env[str, str], chat: ChatFormat, task: str, seed: int) -> _Game:
        message, info = env.reset(seed=seed, options={"task": task})
        conversation = Conversation(chat, append=True)
        prompt, _ = conversation.say(message)
        return cls(env, chat, conversation, task, info["anchor"], prompt.tolist())

    @property
    def ids(self) -> list[int]:
        return self.conversation.token_ids

    @property
    def played(self) -> PlayedEpisode:
        observations, rewards, valid = zip(*self.turns, strict=True) if self.turns else ((), (), ())
        return PlayedEpisode(self.task, self.success, observations, rewards, valid)

    def say(self, ids: list[int], logprobs: list[float] | None) -> None:
        """The policy's response, and what the environment makes of it."""
        response = np.asarray(ids, dtype=np.int32)
        self.conversation.reply(response)
        self.completion += self.context + ids
        self.mask += [0] * len(self.context) + [1] * len(ids)
        if logprobs is None:
            self.logprobs = None
        elif self.logprobs is not None:
            self.logprobs += [0.0] * len(self.context) + logprobs
        text = self.chat.read(self.chat.decode_response(response))
        message, reward, terminated, truncated, info = self.env.step(text)
        self.turns.append((self.anchor, float(reward), bool(info["action_valid"])))
        self.success = bool(info["success"])
        self.anchor = info["anchor"]
        self.over = terminated or truncated or self.success
        if not self.over:
            self.context = self._context(message)

    def _context(self, message: str) -> list[int]:
        context, follows = self.conversation.say(message)
        if not follows:
            raise ValueError(
                f"The chat template of {self.chat.tokenizer.name_or_path!r} changes earlier replies, and TRL trains on "
                "one sequence that only grows; use a template that appends, see docs/chat_templates.md."
            )
        return context.tolist()


def _task_of(prompt: Any) -> str:
    if not isinstance(prompt, str):
        raise ValueError(f"prompt={prompt!r:.80}: the dataset's prompts are task ids here, plain strings.")
    return prompt


def _positions(trainer: Any) -> int:
    config = trainer.model.config
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def _sample(trainer: Any, prompts: list[list[int]]) -> tuple[list[list[int]], list[Any]]:
    """A response to each prompt, by the trainer's engine, transformers or vLLM. By a private name of trl 1.16."""
    ids, logprobs = trainer._generate_single_turn(prompts, None, {}, num_generations=1)
    return ids, [None] * len(ids) if logprobs is None else logprobs
