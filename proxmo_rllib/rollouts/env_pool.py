"""Lending environments to episodes, and calling them without holding up the others, nor waiting for ever."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import gymnasium

from proxmo_rllib import pulse

# Making an environment may read a catalogue, for which a step has no time.
_MAKING_TAKES = 10.0


class EnvironmentStuckError(TimeoutError):
    """A call of an environment did not return in time."""


class CallThread:
    """A thread for the calls of one environment, so that those of others go on.

    It does not keep the process alive: what it calls may never return.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="env", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Has it called after those that were submitted before."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def end(self) -> None:
        """The thread ends when all that was submitted has returned."""
        self._calls.put(None)

    def _run(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except StopIteration as error:  # a future cannot carry it
                future.set_exception(RuntimeError(f"StopIteration: {error.value}"))
            except BaseException as error:  # noqa: BLE001 (sys.exit too; whoever called hears of it)
                future.set_exception(error)
            # Else the last call's result, and with it an environment, would stay until the next.
            del entry, future, call


@dataclass(slots=True)
class OwnEnv:
    """An environment and the thread that it is called in; None for one that is called directly."""

    thread: CallThread | None
    env: gymnasium.Env[str, str] | None = None


class EnvPool:
    """Lends environments to episodes; makes them when needed, up to a limit, and uses them again.

    A blocking environment is made and called in a thread of its own, so that the other episodes go on. One that says
    that it never blocks, or that it is not thread-safe (`metadata`), is called directly.

    Args:
        make: makes one environment.
        limit: environments at most, which bounds the episodes played at once.
        call_timeout_s: seconds that a reset or a step may take; making an environment may take ten times as long. A
            direct call cannot be given up: whoever watches this process (`pulse`) replaces it.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[str, str]], limit: int, call_timeout_s: float = 45.0) -> None:
        self._make = make
        self._limit = limit
        self._call_timeout_s = call_timeout_s
        #: One environment for questions about spaces and tasks; it is lent to episodes too.
        self.probe = make()
        metadata: Mapping[str, Any] = self.probe.unwrapped.metadata or {}
        self._in_threads = bool(metadata.get("blocking", True) and metadata.get("thread_safe", True))
        self._free = [OwnEnv(self._thread(), self.probe)]
        self._gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def _thread(self) -> CallThread | None:
        return CallThread() if self._in_threads else None

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """Waits until one more environment may be used: the limit is that of each event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._gates:
            self._gates[loop] = asyncio.Semaphore(self._limit)
        async with self._gates[loop]:
            lease = Lease(self)
            try:
                yield lease
            except BaseException:
                # Cancelled in the middle of a call, perhaps: nobody knows what state it is in.
                lease.discard()
                raise
            finally:
                if lease.own is not None:
                    self._free.append(lease.own)

    async def take(self) -> OwnEnv:
        """A free environment, or a new one.

        Raises:
            EnvironmentStuckError: it was not made in time.
            Exception: whatever its constructor raises.
        """
        with contextlib.suppress(IndexError):
            return self._free.pop()
        own = OwnEnv(self._thread())
        try:
            own.env = await self.call(own, "making", self._make, _MAKING_TAKES * self._call_timeout_s)
        except BaseException:
            self.throw_away(own)
            raise
        return own

    async def call(
        self, own: OwnEnv, what: str, function: Callable[[], Any], timeout_s: float | None = None, detail: str = ""
    ) -> Any:
        """Calls a function of an environment without holding up the other episodes, where that can be.

        Args:
            own: the environment.
            what: is called, such as "step".
            function: calls it.
            timeout_s: seconds that it may take; None for those of a reset or a step.
            detail: in words, such as the task.

        Raises:
            EnvironmentStuckError: it did not return in time; the environment is of no more use.
            Exception: whatever it raises.
        """
        limit = self._call_timeout_s if timeout_s is None else timeout_s
        whom = f"the environment's {what}"
        if own.thread is None:
            with pulse.waiting(whom, limit, detail):
                return function()
        # Neither `wait_for` nor `wrap_future`: they cost more than many an environment's step.
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        own.thread.submit(function).add_done_callback(lambda done: _settle_in(loop, answer, done))
        timer = loop.call_later(limit, _give_up, answer, limit)
        with pulse.waiting(whom, detail=detail):
            try:
                return await answer
            finally:
                timer.cancel()

    def throw_away(self, own: OwnEnv) -> None:
        """Closes a broken environment; nobody waits for it or hears whether it worked."""
        env = own.env
        if own.thread is None:
            _close_quietly(env)
        else:
            own.thread.submit(lambda: _close_quietly(env))
            own.thread.end()

    def close(self) -> None:
        """Closes the free environments."""
        for own in self._free:
            assert own.env is not None, "only made environments are free"
            own.env.close()
            if own.thread is not None:
                own.thread.end()
        self._free.clear()


class Lease:
    """The environment that one episode has to itself.

    Attributes:
        own: None before the first `reset`, and after `discard`.
    """

    def __init__(self, pool: EnvPool) -> None:
        self._pool = pool
        self.own: OwnEnv | None = None

    async def reset(self, *, seed: int, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """As the environment's; gets it first if need be."""
        if self.own is None:
            self.own = await self._pool.take()
        env = self._env()
        self._task = (options or {}).get("task", "")
        return await self._call("reset", lambda: env.reset(seed=seed, options=options))  # type: ignore[no-any-return]

    async def step(self, response: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment's."""
        env = self._env()
        return await self._call("step", lambda: env.step(response))  # type: ignore[no-any-return]

    async def _call(self, method: str, function: Callable[[], Any]) -> Any:
        assert self.own is not None, "reset comes first"
        result = await self._pool.call(self.own, method, function, detail=f"of task {self._task!r}")
        pulse.tick()
        return result

    def _env(self) -> gymnasium.Env[str, str]:
        assert self.own is not None, "reset comes first"
        assert self.own.env is not None, "it was made before it was lent"
        return self.own.env

    def discard(self) -> None:
        """The environment is broken: the next episode gets another."""
        if self.own is not None:
            self._pool.throw_away(self.own)
            self.own = None


def _settle_in(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], done: Future[Any]) -> None:
    """In the environment's thread: hands over what a call came to, unless nobody waits for it any more."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_settle, answer, done)


def _settle(answer: asyncio.Future[Any], done: Future[Any]) -> None:
    if answer.done():
        return
    error = done.exception()
    if error is None:
        answer.set_result(done.result())
    else:
        answer.set_exception(error)


def _give_up(answer: asyncio.Future[Any], limit: float) -> None:
    if not answer.done():
        answer.set_exception(EnvironmentStuckError(f"did not return within {limit:g} s (env_call_timeout_s)"))


def _close_quietly(env: gymnasium.Env[str, str] | None) -> None:
    with contextlib.suppress(Exception, SystemExit):  # it is broken already
        if env is not None:
            env.close()
