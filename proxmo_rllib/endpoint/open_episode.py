"""One episode that an agent program plays: request by request, until a reward closes it.

All of it happens on the event loop on which it was opened; the server, which has a thread of its own, hands requests
over. Several may be under way at once. A response is a turn of the episode from the moment at which it is complete, and
turns are in this order, whatever branch of the tree they are of. Nothing that comes after the reward counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proxmo_rllib import pulse
from proxmo_rllib.endpoint.chat_request import ChatMessage, ChatRequest
from proxmo_rllib.endpoint.errors import ChatError
from proxmo_rllib.endpoint.prefix_tree import PrefixTree, Prompt
from proxmo_rllib.endpoint.programs import Outcome
from proxmo_rllib.endpoint.responses import Response, check_tools, read_response
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.types import Completion, Status, Turn

logger = logging.getLogger(__name__)

# Far more than any token stands for, runs of spaces included.
_MAX_CHARACTERS_PER_TOKEN = 1000

Sample = Callable[[list[int], str, ChatRequest], Awaitable[Completion]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and what it was sampled for."""

    response: Response
    num_prompt_tokens: int
    token_texts: tuple[str, ...]


class OpenEpisode:
    """Answers the requests of one episode.

    Args:
        task: that is played, in the trainer's words.
        sample: prompt ids, the observation and the request to what an engine says.
        chat: the chat template.
        max_turns: responses that it may have.
        max_prompt_tokens: that a prompt may have.

    Attributes:
        turns: so far; that the last one has the reward is said by `finished_turns`.
        outcome: that the program reported; None before.
        limited: the newest request was refused since the episode is too long, in words; None if it was not.
        last_refusal: why a request was refused last; None if none was.
    """

    def __init__(self, task: str, sample: Sample, chat: ChatFormat, *, max_turns: int, max_prompt_tokens: int) -> None:
        self.task = task
        self._sample = sample
        self._chat = chat
        self._max_turns, self._max_prompt_tokens = max_turns, max_prompt_tokens
        self._tree = PrefixTree(chat)
        self._under_way = 0
        self._over = False
        self.loop = asyncio.get_running_loop()
        self.turns: list[Turn] = []
        self.outcome: Outcome | None = None
        self.limited: str | None = None
        self.last_refusal: str | None = None
        #: Done when the program has reported its outcome; fails if the policy could not answer.
        self.closed: asyncio.Future[None] = self.loop.create_future()

    async def complete(self, request: ChatRequest) -> Answer:
        """Samples a response, which becomes a turn.

        Raises:
            ChatError: the request is refused, or the policy cannot answer.
        """
        try:
            return await self._complete(request)
        except ChatError as refusal:
            self.last_refusal = refusal.message
            raise

    def close(self, outcome: Outcome) -> None:
        """Takes the reward.

        Raises:
            ChatError: it has one, or there is nothing to be rewarded.
        """
        self._check_open()
        if not self.turns:
            self.last_refusal = "a reward came before any response, and there is nothing to learn from"
            raise ChatError(400, f"{self.last_refusal}: ask for a chat completion first.", code="no_response")
        self.outcome = outcome
        self.end()

    def end(self) -> None:
        """Nothing counts any more."""
        self._over = True
        if not self.closed.done():
            self.closed.set_result(None)
        else:
            self.closed.exception()  # heard of, else asyncio says that nobody has

    def finished_turns(self) -> tuple[Turn, ...]:
        """All turns, the last of them with the reward."""
        if self.outcome is None or not self.turns:
            return tuple(self.turns)
        return *self.turns[:-1], replace(self.turns[-1], reward=self.outcome.reward)

    def status(self) -> Status | None:
        """How it ended; None where the program said nothing and nothing kept it from it."""
        if self.outcome is not None and self.outcome.success:
            return Status.SUCCESS
        if self.limited is not None and self.turns:
            return Status.TRUNCATED
        return None if self.outcome is None else Status.FAILURE

    async def _complete(self, request: ChatRequest) -> Answer:
        self._check_open()
        if len(self.turns) + self._under_way >= self._max_turns:
            self.limited = f"it has had max_turns={self._max_turns} responses"
            raise ChatError(
                400, f"The episode is over: {self.limited}. Report its reward, or end.", code="turn_limit_exceeded"
            )
        prompt = self._prompt(request)
        observation = observation_of(request.messages)
        self._under_way += 1
        try:
            completion = await self._sample(prompt.token_ids, observation, request)
        except ChatError:
            raise
        except Exception as error:
            if not self.closed.done():
                self.closed.set_exception(error)
            raise ChatError(503, f"The policy cannot answer: {type(error).__name__}: {error}") from error
        finally:
            self._under_way -= 1
        self._check_open()
        pulse.tick()
        return self._take(request, prompt, observation, completion)

    def _take(self, request: ChatRequest, prompt: Prompt, observation: str, completion: Completion) -> Answer:
        number = len(self.turns)
        self.limited = None  # a program that was refused a prompt may have shortened it
        response = read_response(self._chat, completion, request, f"call_{number}_")
        # Only behind the turn that came last do its tokens stand in the same sequence.
        appended = prompt.follows is not None and prompt.follows == number - 1
        context = prompt.token_ids[prompt.num_known :] if appended else prompt.token_ids
        sampled = response.completion
        self.turns.append(
            Turn(
                context_ids=np.asarray(context, np.int32),
                appended=appended,
                response_ids=sampled.token_ids,
                logprobs=sampled.logprobs,
                policy_version=sampled.policy_version,
                anchor=observation,
                response=response.raw,
                action=_shown(response.message),
                action_valid=True,
                reward=0.0,
                version_changes=sampled.version_changes,
                demonstration=sampled.demonstration,
                empty_thought=sampled.empty_thought,
                cut=sampled.finish_reason == "length",
            )
        )
        self._tree.add(prompt, number, sampled.token_ids, response.message, response.raw)
        texts = tuple(self._chat.tokenizer.decode([token]) for token in sampled.token_ids) if request.logprobs else ()
        return Answer(response, len(prompt.token_ids), texts)

    def _prompt(self, request: ChatRequest) -> Prompt:
        if request.tools:
            check_tools(self._chat)
        if self._chat.has_system_message and request.messages[0].role == "system":
            raise ChatError(
                400,
                "messages[0].role='system': the run has a system_message of its own; set system_message=None, or leave "
                "out the program's.",
                param="messages[0].role",
            )
        characters = sum(len(message.content) for message in request.messages)
        # What cannot fit in any case is not read: a tokenizer takes minutes over 100 MB, and holds everybody up.
        if characters > _MAX_CHARACTERS_PER_TOKEN * self._max_prompt_tokens:
            raise self._too_long(f"{characters} characters")
        try:
            prompt = self._tree.prompt(request.messages, request.tools)
        except ValueError as error:
            raise ChatError(400, f"messages: {error}", param="messages") from error
        if len(prompt.token_ids) > self._max_prompt_tokens:
            raise self._too_long(f"{len(prompt.token_ids)} tokens")
        return prompt

    def _too_long(self, size: str) -> ChatError:
        self.limited = f"a prompt has {size}, and there is room for {self._max_prompt_tokens} tokens"
        return ChatError(
            400,
            f"The maximum context length is exceeded: {self.limited} (max_model_len - max_response_tokens). Shorten "
            "the messages, or raise max_model_len.",
            param="messages",
            code="context_length_exceeded",
        )

    def _check_open(self) -> None:
        if self._over:
            raise ChatError(410, "The episode has ended: ask for nothing more in it.", code="episode_closed")


def observation_of(messages: tuple[ChatMessage, ...]) -> str:
    """What the policy answers: all that was said since its last reply, but for instructions (`system`)."""
    newest: list[ChatMessage] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        newest.insert(0, message)
    said = [message for message in newest if message.role != "system"] or newest
    return "\n".join(message.content for message in said)


def _shown(message: ChatMessage) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n".join(part for part in (message.content, *calls) if part)


def no_sampling_of_its_own(agent: Any) -> Sample:
    """The policy as the trainer has it sampled, whatever the request says of temperature, top_p and seed."""

    async def sample(prompt_ids: list[int], observation: str, request: ChatRequest) -> Completion:
        _say_once(request)
        completion: Completion = await agent.respond(prompt_ids, observation, {})
        return completion

    return sample


_told: set[str] = set()


def _say_once(request: ChatRequest) -> None:
    """Most programs ask for a temperature, many for 0: to refuse them would help nobody, and silence neither."""
    for name in ("temperature", "top_p", "seed"):
        value = getattr(request, name)
        if value is not None and name not in _told:
            _told.add(name)
            logger.warning(
                "The program asks for %s=%r. It is not followed: the config says how to sample.", name, value
            )
