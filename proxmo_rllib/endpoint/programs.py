"""Who plays an episode: a command that is started for it, a Python function, or a program that asks for it.

An episode of a program ends with its reward. One that ends without is a broken episode, unless the endpoint had told it
that the episode has become too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from env_wrappers.contract import as_bool, as_number
from proxmo_rllib.endpoint.errors import ChatError, refuse

# Seconds that a program has to end by itself after its reward.
_GRACE_S = 10.0
_LAST_WORDS = 2000  # bytes
_MOST = 1e30  # of a reward: the squares of smaller ones are finite


@dataclass(frozen=True, slots=True)
class AgentEpisode:
    """What an agent program is told.

    Attributes:
        task: what to play.
        seed: the same for all episodes of a group, which begin in the same state.
        base_url: of OpenAI's API, for this episode alone.
        api_key: for it.
        reward_url: where the reward is posted.
        model: the name by which the policy is asked for.
    """

    task: str
    seed: int
    base_url: str
    api_key: str
    reward_url: str
    model: str

    def as_environment(self) -> dict[str, str]:
        """The variables of a command."""
        quiet = [part for part in (os.environ.get("NO_PROXY", ""), "127.0.0.1", "localhost") if part]
        return {
            "OPENAI_BASE_URL": self.base_url,
            "OPENAI_API_KEY": self.api_key,
            "PROXMO_MODEL": self.model,
            "PROXMO_REWARD_URL": self.reward_url,
            "PROXMO_SEED": str(self.seed),
            "PROXMO_TASK": self.task,
            # Loopback needs no way out.
            "NO_PROXY": ",".join(quiet),
            "no_proxy": ",".join(quiet),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode came out.

    Attributes:
        reward: of the last turn, unit of reward.
        success: whether the task was solved; never derived from the reward.
        score: of a task that has one; None else.
    """

    reward: float
    success: bool
    score: float | None = None


def read_outcome(body: Any) -> Outcome:
    """An outcome from JSON, or from what a function returned.

    Raises:
        ChatError: something is missing or wrong; names it.
    """
    if isinstance(body, Outcome):
        body = {"reward": body.reward, "success": body.success, "score": body.score}
    if not isinstance(body, Mapping):
        raise refuse("reward", body, "it is an object such as {'reward': 1.0, 'success': true}.")
    if unknown := sorted(str(key) for key in body if key not in ("reward", "success", "score")):
        raise refuse(unknown[0], body[unknown[0]], "there are `reward`, `success` and `score`.")
    success = as_bool(body.get("success"))
    if success is None:
        raise refuse(
            "success", body.get("success"), "say true or false: whether the task is solved is not read from the reward."
        )
    reward = _finite(body.get("reward"), "reward")
    score = None if body.get("score") is None else _finite(body["score"], "score")
    return Outcome(reward, success, score)


def _finite(value: Any, name: str) -> float:
    number = None if as_bool(value) is not None else as_number(value)
    if number is None or abs(number) > _MOST:
        raise refuse(name, value, f"it is a finite number up to {_MOST:g}.")
    return number


class Closing(Protocol):
    """The part of an open episode that a program has to do with."""

    closed: asyncio.Future[None]

    def close(self, outcome: Outcome) -> None: ...


async def run_command(command: Sequence[str], told: AgentEpisode, episode: Closing) -> str:
    """Runs a command until the episode is closed, or it ends.

    Args:
        command: program and arguments.
        told: goes into its environment.
        episode: that it plays.

    Returns:
        How it ended, in words.
    """
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **told.as_environment()},
            start_new_session=True,
        )
        ended: asyncio.Future[Any] = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait([ended, episode.closed], return_when=asyncio.FIRST_COMPLETED)
            if episode.closed.done() and episode.closed.exception() is None:
                await asyncio.wait({ended}, timeout=_GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of its group is left
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(ended)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _LAST_WORDS))
        words = output.read().decode(errors="replace").strip()
    said = f"; its last words: {words}" if words else ""
    return f"the command {command[0]!r} ended with status {process.returncode}{said}"


async def run_function(function: Callable[[AgentEpisode], Any], told: AgentEpisode, episode: Closing) -> str:
    """Calls a function, or awaits a coroutine function, and takes what it returns as the outcome.

    Args:
        function: in a thread of its own, which goes on if it is given up; a coroutine function on this event loop.
        told: its argument.
        episode: that it plays.

    Returns:
        How it ended, in words.
    """
    if inspect.iscoroutinefunction(function):
        call: asyncio.Future[Any] = asyncio.ensure_future(function(told))
    else:
        call = asyncio.wrap_future(_in_thread(lambda: function(told)))
    try:
        await asyncio.wait([call, episode.closed], return_when=asyncio.FIRST_COMPLETED)
        if episode.closed.done():
            return "it was closed"
        try:
            result = call.result()
            if result is not None:
                episode.close(read_outcome(result))
        except ChatError as error:
            return f"what it returned was refused: {error}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever ends the program: its episode has no reward)
            return f"it raised {type(error).__name__}: {error}"
        return "it returned no outcome"
    finally:
        call.cancel()


def _in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Calls in a thread that does not keep the process alive: what it calls may never return."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 (sys.exit too; whoever called hears of it)
            stray = isinstance(error, StopIteration)  # which a future cannot carry
            future.set_exception(RuntimeError(f"StopIteration: {error}") if stray else error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="agent", daemon=True).start()
    return future
