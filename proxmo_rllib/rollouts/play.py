"""Groups of episodes at once, and one episode read top to bottom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from env_wrappers.contract import ContractError
from proxmo_rllib.rollouts.agents import Agent
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.env_pool import EnvironmentStuckError, EnvPool, Lease
from proxmo_rllib.types import Assignment, Completion, Episode, Group, Status, Turn

logger = logging.getLogger(__name__)

# Far more than any token stands for, runs of spaces included.
_MAX_CHARACTERS_PER_TOKEN = 1000
NO_TOKENS = np.zeros(0, np.int32)


class EnvironmentFailure(Exception):
    """The environment raised, or broke its contract; carries what it was doing."""


class AgentFailure(Exception):
    """The agent could not answer: the engine is dead, stale or silent, or a script raised."""


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What became of the assignments.

    Attributes:
        groups: those whose episodes all ended, be it with status ERROR.
        lost: why each of the other groups did not end, by its id: what kept the agent from answering, the time that was
            over, or what broke in this process.
    """

    groups: tuple[Group, ...]
    lost: Mapping[str, str]

    @property
    def group_ids(self) -> tuple[str, ...]:
        """Ids of `groups`."""
        return tuple(group.group_id for group in self.groups)


@runtime_checkable
class PlaysItself(Protocol):
    """An environment that is not stepped: it has its episodes played in a way of its own."""

    def check_config(self, config: Any) -> None:
        """Refuses settings of a ProxMOConfig that its way of playing would not read; raises ValueError."""

    async def play_episode(
        self,
        agent: Agent,
        chat: ChatFormat,
        assignment: Assignment,
        index: int,
        *,
        max_turns: int,
        max_prompt_tokens: int,
    ) -> Episode:
        """Has one episode played; see the function `play_episode` for the arguments and what is raised."""


async def play_groups(
    pool: EnvPool,
    assignments: Sequence[Assignment],
    make_agent: Callable[[Assignment, int], Agent],
    chat: ChatFormat,
    **how: Any,
) -> PlayResult:
    """Plays all episodes of all groups at once, as many as the pool has environments.

    Args:
        pool: lends the environments.
        assignments: the groups.
        make_agent: who plays an episode, by its assignment and place in the group.
        chat: pieces of the chat template.
        **how: of `play_group`.
    """
    outcomes = await asyncio.gather(*(play_group(pool, each, make_agent, chat, **how) for each in assignments))
    lost = {a.group_id: o for a, o in zip(assignments, outcomes, strict=True) if isinstance(o, str)}
    return PlayResult(tuple(outcome for outcome in outcomes if isinstance(outcome, Group)), lost)


async def play_group(
    pool: EnvPool,
    assignment: Assignment,
    make_agent: Callable[[Assignment, int], Agent],
    chat: ChatFormat,
    *,
    on_episode: Callable[[], None] = lambda: None,
    seconds: float | None = None,
    **limits: Any,
) -> Group | str:
    """Plays the episodes of a group at once.

    Args:
        pool: lends the environments.
        assignment: the group.
        make_agent: who plays an episode, by its assignment and place in the group.
        chat: pieces of the chat template.
        on_episode: is called when an episode has ended.
        seconds: after which it is given up if it has not ended; None for never.
        **limits: of `play_episode`.

    Returns:
        The group, or why it did not end.
    """

    async def episode(index: int) -> Episode:
        async with pool.lease() as lease:
            agent = make_agent(assignment, index)
            if isinstance(player := pool.probe.unwrapped, PlaysItself):
                own = {"max_turns": assignment.max_turns or limits["max_turns"]}
                own["max_prompt_tokens"] = limits["max_prompt_tokens"]
                played = await player.play_episode(agent, chat, assignment, index, **own)
            else:
                played = await play_episode(lease, agent, chat, assignment, index, **limits)
        on_episode()
        return played

    episodes = [asyncio.ensure_future(episode(index)) for index in range(assignment.size)]
    try:
        async with asyncio.timeout(seconds):
            return Group(assignment.group_id, assignment.task, tuple(await asyncio.gather(*episodes)))
    except AgentFailure as failure:
        reason = str(failure)
    except TimeoutError:
        reason = f"it had not ended after {seconds:g} s (sample_timeout_s)"
    except Exception as error:  # ours or a library's: one group must not take the others with it
        logger.exception("Task %r broke.", assignment.task)
        reason = f"{type(error).__name__}: {error}"
    finally:
        # Without one of them the others are of no use.
        for task in episodes:
            task.cancel()
        await asyncio.gather(*episodes, return_exceptions=True)
    return reason


async def play_episode(
    lease: Lease,
    agent: Agent,
    chat: ChatFormat,
    assignment: Assignment,
    index: int,
    *,
    append: bool,
    max_turns: int,
    max_prompt_tokens: int,
) -> Episode:
    """Plays one episode to its end.

    An environment that raises ends this episode with status ERROR and is replaced.

    Args:
        lease: the environment.
        agent: answers.
        chat: pieces of the chat template.
        assignment: the group.
        index: place of the episode in its group.
        append: whether the conversation is append-only.
        max_turns: turns after which it is truncated, unless the assignment says it.
        max_prompt_tokens: a longer prompt ends the episode as truncated; at the first turn it is an error.

    Raises:
        AgentFailure: the agent could not answer.
    """
    turns: list[Turn] = []
    info: dict[str, Any] = {}
    if assignment.max_turns is not None:
        max_turns = assignment.max_turns
    try:
        status = await _play(lease, agent, chat, assignment, turns, info, append, max_turns, max_prompt_tokens)
        error = None
    except EnvironmentFailure as failure:
        # What raised shows where; of what was returned the words say all.
        trace = None if isinstance(failure.__cause__, ContractError | EnvironmentStuckError) else failure.__cause__
        logger.warning("Task %r: %s", assignment.task, failure, exc_info=trace)
        status, error = Status.ERROR, f"task {assignment.task!r}: {failure}"
        if failure.__cause__ is not None:
            lease.discard()
    return Episode(
        episode_id=f"{assignment.group_id}-{index}",
        group_id=assignment.group_id,
        task=assignment.task,
        task_type=info.get("task_type", ""),
        seed=assignment.seed,
        turns=tuple(turns),
        status=status,
        score=info.get("score"),
        error=error,
    )


async def _play(
    lease: Lease,
    agent: Agent,
    chat: ChatFormat,
    assignment: Assignment,
    turns: list[Turn],
    last_info: dict[str, Any],
    append: bool,
    max_turns: int,
    max_prompt_tokens: int,
) -> Status:
    conversation = Conversation(chat, append=append)
    options = {"task": assignment.task} if assignment.task else None
    message, info = await _call(lease.reset, seed=assignment.seed, options=options)
    last_info.update(info)
    while True:
        # What cannot fit in any case is not read: a tokenizer takes minutes over 100 MB, and holds everybody up.
        fits = len(message) <= _MAX_CHARACTERS_PER_TOKEN * max_prompt_tokens
        context_ids, appended = conversation.say(message) if fits else (NO_TOKENS, False)
        if not fits or len(conversation.token_ids) > max_prompt_tokens:
            if turns:
                return Status.TRUNCATED
            size = f"{len(conversation.token_ids)} tokens" if fits else f"{len(message)} characters"
            raise EnvironmentFailure(
                f"its first prompt has {size}, and there is room for {max_prompt_tokens} tokens "
                "(max_model_len - max_response_tokens); raise max_model_len or shorten the prompt"
            )
        anchor = info["anchor"]
        completion = await _answer(agent, conversation.token_ids, anchor, info)
        conversation.reply(completion.token_ids)
        response = chat.decode_response(completion.token_ids)
        message, reward, terminated, truncated, info = await _call(lease.step, chat.read(response))
        last_info.update(info)
        turns.append(
            Turn(
                context_ids=context_ids,
                appended=appended,
                response_ids=completion.token_ids,
                logprobs=completion.logprobs,
                policy_version=completion.policy_version,
                anchor=anchor,
                response=response,
                action=info["action"],
                action_valid=info["action_valid"],
                reward=reward,
                version_changes=completion.version_changes,
                demonstration=completion.demonstration,
                empty_thought=completion.empty_thought,
                cut=completion.finish_reason == "length",
            )
        )
        if terminated or truncated or len(turns) >= max_turns:
            if info["success"]:
                return Status.SUCCESS
            return Status.FAILURE if terminated else Status.TRUNCATED


async def _answer(agent: Agent, prompt_ids: list[int], observation: str, info: dict[str, Any]) -> Completion:
    try:
        return await agent.respond(prompt_ids, observation, info)
    except Exception as error:
        raise AgentFailure(f"{type(error).__name__}: {error}") from error


async def _call(method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    try:
        return await method(*args, **kwargs)
    except ContractError as error:
        raise EnvironmentFailure(str(error)) from error
    except EnvironmentStuckError as error:
        raise EnvironmentFailure(f"the environment's {method.__name__} {error}") from error
    except (Exception, SystemExit) as error:  # a sys.exit would end everybody's episodes
        raise EnvironmentFailure(
            f"the environment's {method.__name__} raised {type(error).__name__}: {error}"
        ) from error
