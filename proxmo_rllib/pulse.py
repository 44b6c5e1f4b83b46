"""What each process of a run gets done and waits for, told to whoever watches it: a hang must not look like work.

    tick()                        something got done: a turn, a completion, a micro-batch
    with waiting("engine 0"):     this process cannot go on until that answers
    Heartbeat(handle)             a thread of an actor that writes both into Ray's key-value store, every other second
    last_beat(actor_id)           what it wrote last

Alpha API of Ray, written for Ray 2.60.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import ray
from ray.experimental import internal_kv

logger = logging.getLogger(__name__)

BEAT_S = 2.0
_PREFIX = "proxmo_heartbeat:"


@dataclass(frozen=True, slots=True)
class Wait:
    """What a process waits for.

    Attributes:
        whom: in words, such as "engine 0" or "the environment's step".
        count: how many of its episodes or requests do.
        seconds: that the first of them has waited.
        limit_s: after which the process cannot be helped but by replacing it; infinite where it helps itself.
        detail: of the first of them, such as the task.
    """

    whom: str
    count: int
    seconds: float
    limit_s: float = math.inf
    detail: str = ""

    def __str__(self) -> str:
        many = f" ({self.count} of them)" if self.count > 1 else ""
        return f"{self.whom}{self.detail and ' ' + self.detail} for {self.seconds:.0f} s{many}"


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life.

    Attributes:
        pid: of the process; another one after a restart.
        number: of the beat.
        progress: how often something got done in the process.
        waits: what it waits for, the longest first.
        children: ids of the processes that it has started, of those that these have, and so on.
    """

    pid: int
    number: int
    progress: int
    waits: tuple[Wait, ...] = ()
    children: tuple[int, ...] = ()

    def stuck(self) -> Wait | None:
        """What the process has waited for beyond its limit, so that it has to be replaced; None if nothing."""
        return next((wait for wait in self.waits if wait.seconds > wait.limit_s), None)


@dataclass(slots=True)
class _Present:
    """Of this process."""

    progress: int = 0
    waits: dict[int, tuple[str, float, float, str]] = field(default_factory=dict)


_present = _Present()
_tickets = itertools.count()


def tick() -> None:
    """Something got done in this process."""
    _present.progress += 1


@contextlib.contextmanager
def waiting(whom: str, limit_s: float = math.inf, detail: str = "") -> Iterator[None]:
    """Within it, this process (or one of its many episodes) waits for somebody.

    Args:
        whom: in words; those of one name are counted together.
        limit_s: seconds after which the process is to be replaced, if it cannot end the wait itself.
        detail: in words, of this one.
    """
    ticket = next(_tickets)
    _present.waits[ticket] = (whom, time.monotonic(), limit_s, detail)
    try:
        yield
    finally:
        del _present.waits[ticket]


@contextlib.contextmanager
def said_while_waiting(what: str, every_s: float = 30.0) -> Iterator[None]:
    """Within it something foreign has this process: while it does not return, a line says so every half minute."""
    over = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while not over.wait(every_s):
            logger.warning("%s: it has not returned for %.0f s.", what, time.monotonic() - started)

    threading.Thread(target=watch, name="said-while-waiting", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def present(number: int = 0) -> Beat:
    """The beat of this process, now."""
    now = time.monotonic()
    first: dict[str, tuple[float, float, str]] = {}
    count: dict[str, int] = {}
    for whom, since, limit_s, detail in list(_present.waits.values()):
        count[whom] = count.get(whom, 0) + 1
        if whom not in first or since < first[whom][0]:
            first[whom] = (since, limit_s, detail)
    waits = [Wait(whom, count[whom], now - since, limit, detail) for whom, (since, limit, detail) in first.items()]
    waits.sort(key=lambda wait: -wait.seconds)
    return Beat(os.getpid(), number, _present.progress, tuple(waits), _descendants())


class Heartbeat:
    """A thread that writes this actor's beats until the process ends. Does nothing in a process that is no actor.

    Args:
        silence_s: seconds that a process which this one has started may be stopped (SIGSTOP) before that is a reason to
            replace both.
        look: is called before each beat, such as to ask a child process for a sign of life; must not block.
        grandchildren: whether that holds for processes which its children have started too, as vLLM's workers. Those of
            an environment are its own business: a shell stops its jobs.
    """

    def __init__(
        self, silence_s: float, look: Callable[[], None] = lambda: None, *, grandchildren: bool = False
    ) -> None:
        # Not in the thread, which has no task and so no actor of its own.
        actor_id = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
        self._silence_s = silence_s
        self._look = look
        self._grandchildren = grandchildren
        self._stopped: dict[int, contextlib.ExitStack] = {}
        self._key = (_PREFIX + actor_id).encode() if actor_id else None
        if self._key is not None:
            threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def _run(self) -> None:
        assert self._key is not None
        for number in itertools.count():
            self._look()
            self._look_at_children()
            try:
                internal_kv._internal_kv_put(self._key, _packed(present(number)), overwrite=True)
            except Exception as error:  # noqa: BLE001 (Ray is going down, or its store does not answer for a while)
                logger.info("No heartbeat could be written: %s", error)
            time.sleep(BEAT_S)

    def _look_at_children(self) -> None:
        """Takes down who of this process's children is stopped, from when it was seen first."""
        mine = _descendants() if self._grandchildren else _children()
        stopped = {pid for pid in mine if _is_stopped(pid)}
        for pid in stopped - self._stopped.keys():
            self._stopped[pid] = contextlib.ExitStack()
            whom = f"its process {pid}, which is stopped (SIGSTOP),"
            self._stopped[pid].enter_context(waiting(whom, self._silence_s))
        for pid in self._stopped.keys() - stopped:
            self._stopped.pop(pid).close()


def last_beat(actor_id: str) -> Beat | None:
    """What an actor wrote last; None before its first.

    Args:
        actor_id: hexadecimal.
    """
    text = internal_kv._internal_kv_get((_PREFIX + actor_id).encode())
    return _unpacked(text) if text else None


def forget(actor_id: str) -> None:
    """Removes what an actor wrote; it is gone."""
    internal_kv._internal_kv_del((_PREFIX + actor_id).encode())


def _packed(beat: Beat) -> bytes:
    waits = [
        [w.whom, w.count, w.seconds, w.limit_s if math.isfinite(w.limit_s) else None, w.detail] for w in beat.waits
    ]
    return json.dumps([beat.pid, beat.number, beat.progress, waits[:8], beat.children]).encode()


def _unpacked(text: bytes) -> Beat:
    pid, number, progress, waits, children = json.loads(text)
    read = (Wait(w[0], w[1], w[2], math.inf if w[3] is None else w[3], w[4]) for w in waits)
    return Beat(pid, number, progress, tuple(read), tuple(children))


def _children(of: int | str = "self") -> tuple[int, ...]:
    """Ids of this process's children, or of another's; Linux only, elsewhere none are known."""
    try:
        tasks = os.listdir(f"/proc/{of}/task")
        found = [open(f"/proc/{of}/task/{task}/children").read() for task in tasks]  # noqa: SIM115 (closed at once)
    except OSError:
        return ()
    return tuple(int(pid) for pids in found for pid in pids.split())


def _descendants() -> tuple[int, ...]:
    """Ids of this process's children, of theirs, and so on."""
    found = list(_children())
    for pid in found:  # grows meanwhile
        found += _children(pid)
    return tuple(found)


def cpu_seconds_of_children() -> float:
    """Processor time that this process's children, theirs, and so on, have used so far; 0 where it cannot be read."""
    ticks = 0
    for pid in _descendants():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:  # it has ended meanwhile
        return False
