"""`OutsideAgent`: the environment of those who have an agent program instead of an environment.

It lists the tasks and says who plays. `reset` and `step` are of no use: the program has the world, the tools and the
loop, and asks the policy whenever it likes. Whatever plays groups of episodes (training, a panel, `proxmo eval`) has
such an environment play its episodes itself, and gets the same records as of any other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium

from env_wrappers.core import AnyText
from proxmo_rllib import pulse
from proxmo_rllib.endpoint.open_episode import OpenEpisode, no_sampling_of_its_own
from proxmo_rllib.endpoint.programs import AgentEpisode, run_command, run_function
from proxmo_rllib.endpoint.server import EndpointServer
from proxmo_rllib.rollouts.agents import Agent
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.rollouts.play import AgentFailure
from proxmo_rllib.types import Assignment, Episode, Status

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "PROXMO_ENDPOINT_TOKEN"
# Settings that shape messages and read actions: the program does both.
_UNREAD = {
    "context": "append",
    "history": None,
    "invalid_action_penalty": 0.0,
    "response_style": "bare",
    "show_admissible": False,
    "template": "bare",
}


class OutsideAgent(gymnasium.Env[str, str]):
    """Episodes that an agent program plays through OpenAI's API.

    Derive a class that lists the tasks and says who plays: a `command`, which is started for each episode; a method
    `play`, which is called for each; or neither, and programs come by themselves (`POST /episodes/next`).

    Args:
        host: address that the endpoint listens at.
        port: of the endpoint; 0 for a free one. Programs that come by themselves need one that they know.
        model: the name by which the policy is asked for.
        timeout_s: seconds that an episode may take; one without a reward by then is given up.

    Examples:
        >>> class Shopping(OutsideAgent):
        ...     command = ("python", "shopping_agent.py")
        ...
        ...     def tasks(self, split):
        ...         return [f"{split}/{number}" for number in range(100)]
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "blocking": False}  # type: ignore[misc]
    #: Program and arguments. It finds its task in $PROXMO_TASK, and the policy in $OPENAI_BASE_URL.
    command: ClassVar[Sequence[str] | None] = None
    #: Plays an episode, in a thread of its own, and returns an `Outcome` or a dictionary of its fields; or a coroutine
    #: function.
    play: Callable[[AgentEpisode], Any] | None = None

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, model: str = "policy", timeout_s: float = 600.0
    ) -> None:
        self.observation_space = self.action_space = AnyText()
        self.host, self.port, self.model, self.timeout_s = host, port, model, timeout_s
        if self.command is not None and self.play is not None:
            raise ValueError(f"{type(self).__name__} has a command and a method play: keep one of the two.")
        if isinstance(self.command, str):
            raise ValueError(f"command={self.command!r}: give a list of words, such as ('python', 'agent.py').")
        if self._comes_by_itself:
            if not port:
                raise ValueError(
                    f"port=0: {type(self).__name__} has no command and no method play, so programs come by themselves, "
                    "and need a port that they know; set env_config={'port': 8700}, or say who plays."
                )
            _token_of_the_user()

    @property
    def _comes_by_itself(self) -> bool:
        return self.command is None and self.play is None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """The task's id; the program knows what it means."""
        super().reset(seed=seed)
        self._task = (options or {}).get("task", "")
        return f"Task {self._task}", self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Ends what cannot be played by hand."""
        return "An agent program plays this.", 0.0, False, True, self._info()

    def _info(self) -> dict[str, Any]:
        return {"success": False, "task": self._task, "task_type": self.task_type(self._task), "goal": ""}

    def task_type(self, task: str) -> str:
        """What results are broken down by; the class's own name unless you say another."""
        return type(self).__name__

    def check_config(self, config: Any) -> None:
        """Refuses settings that nobody would read.

        Args:
            config: a ProxMOConfig.

        Raises:
            ValueError: names the setting.
        """
        for key, default in _UNREAD.items():
            if (value := getattr(config, key)) != default:
                raise ValueError(
                    f"{key}={value!r}: {type(self).__name__} is an agent program, which writes its messages and reads "
                    f"the answers itself; leave it at {default!r}."
                )
        if self.port and config.num_env_runners > 1:
            raise ValueError(
                f"port={self.port}: num_env_runners={config.num_env_runners} would all listen there; set "
                "num_env_runners=1 (it plays max_concurrent_episodes at once), or port=0."
            )

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
        """Has a program play one episode; see `rollouts.play.PlaysItself`.

        Raises:
            AgentFailure: the policy could not answer.
        """
        server = _server(self.host, self.port, self.model)
        episode = OpenEpisode(
            assignment.task,
            no_sampling_of_its_own(agent),
            chat,
            max_turns=max_turns,
            max_prompt_tokens=max_prompt_tokens,
        )
        # Not the episode's id alone: a group that is played again must not hear of programs of the first time.
        key = f"{assignment.group_id}-{index}.{secrets.token_hex(8)}"
        told = AgentEpisode(
            task=assignment.task,
            seed=assignment.seed,
            base_url=server.base_url(key),
            api_key=server.token,
            reward_url=server.reward_url(key),
            model=self.model,
        )
        server.add(key, episode)
        try:
            with pulse.waiting("the agent program", detail=f"of task {assignment.task!r}"):
                reason = await self._run(server, told, episode)
        finally:
            episode.end()
            server.remove(key)
        return self._record(episode, assignment, index, reason)

    async def _run(self, server: EndpointServer, told: AgentEpisode, episode: OpenEpisode) -> str:
        """Until the episode is closed or cannot be any more. Returns why not, in words."""
        try:
            async with asyncio.timeout(self.timeout_s):
                if self.command is not None:
                    reason = await run_command(self.command, told, episode)
                elif self.play is not None:
                    reason = await run_function(self.play, told, episode)
                else:
                    reason = await self._wait_for_a_program(server, told, episode)
        except TimeoutError:
            reason = f"there was no reward after {self.timeout_s:g} s (timeout_s)"
        except OSError as error:
            reason = f"command={self.command!r}: {error.strerror or error}"
        if episode.closed.done() and (failure := episode.closed.exception()) is not None:
            raise AgentFailure(f"{type(failure).__name__}: {failure}") from failure
        return reason

    async def _wait_for_a_program(self, server: EndpointServer, told: AgentEpisode, episode: OpenEpisode) -> str:
        server.offer(told)
        try:
            await asyncio.wait({episode.closed})
        finally:
            server.withdraw(told)
        return "it was closed"

    def _record(self, episode: OpenEpisode, assignment: Assignment, index: int, reason: str) -> Episode:
        status, error = episode.status(), None
        if status is None:
            hint = f"; its last request was refused: {episode.last_refusal}" if episode.last_refusal else ""
            status = Status.ERROR
            error = f"task {assignment.task!r}: it ended without a reward: {reason}{hint}"
            logger.warning("%s", error)
        return Episode(
            episode_id=f"{assignment.group_id}-{index}",
            group_id=assignment.group_id,
            task=assignment.task,
            task_type=self.task_type(assignment.task),
            seed=assignment.seed,
            turns=episode.finished_turns(),
            status=status,
            score=episode.outcome.score if episode.outcome is not None else None,
            error=error,
        )


def _token_of_the_user() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < 16:
        raise ValueError(
            f"{TOKEN_VARIABLE}={'too short' if token else 'not set'}: programs that come by themselves need a token "
            f"that they know, of 16 characters or more; export {TOKEN_VARIABLE}=$(openssl rand -hex 16) for both."
        )
    return token


_servers: dict[tuple[str, int, str], EndpointServer] = {}
_lock = threading.Lock()


def _server(host: str, port: int, model: str) -> EndpointServer:
    """The endpoint of this process, which stays for as long as the process does."""
    with _lock:
        if (host, port, model) not in _servers:
            token = _token_of_the_user() if port else secrets.token_urlsafe(24)
            _servers[host, port, model] = EndpointServer(host, port, token, model)
        return _servers[host, port, model]
