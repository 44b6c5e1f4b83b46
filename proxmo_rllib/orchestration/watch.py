"""Watches over the processes of a run: says who waits for whom when nothing gets done, and ends what is stuck.

    every part ──heartbeat──► Ray's key-value store ──► Watch (a thread beside the algorithm)
                                                          │ no sign of life, or a wait beyond its limit: SIGKILL
                                                          └► the rest is as for any death: replaced, played again

A hang becomes a death, and deaths are mended in one place each: `Runners`, `InferencePool`, the learners.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxmo_rllib import activity, pulse
from proxmo_rllib.faults import Cause, FaultLog
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.machine.actors import end_actor, is_alive_as

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_SAY_AFTER_S = 30.0
# What is shorter is no wait, and no silence.
_A_WHILE_S = 3 * pulse.BEAT_S


@dataclass(frozen=True, slots=True)
class Part:
    """A process that is watched.

    Attributes:
        name: in words, such as "engine 0".
        handle: of the actor.
        restarts: whether Ray starts it again.
    """

    name: str
    handle: Any
    restarts: bool = False

    @property
    def actor_id(self) -> str:
        """Hexadecimal."""
        return str(self.handle._actor_id.hex())


def engine_parts(pool: InferencePool) -> list[Part]:
    """The engines of a pool."""
    return [Part(f"engine {rank}", handle) for rank, handle in enumerate(pool.handles)]


@dataclass(slots=True)
class _Seen:
    """What was seen of a part."""

    beat: pulse.Beat
    since: float  # time.monotonic() when this beat was seen first
    ended: bool = False


class Watch:
    """The thread. Begins with `start` and ends with `stop`.

    Args:
        parts: the processes as they are now.
        faults: is told what was found.
        silence_timeout_s: seconds without a heartbeat after which a process is ended.
    """

    def __init__(self, parts: Callable[[], Sequence[Part]], faults: FaultLog, silence_timeout_s: float) -> None:
        self._parts = parts
        self._faults = faults
        self._silence_s = silence_timeout_s
        self._seen: dict[str, _Seen] = {}
        self._progress = -1
        self._progress_at = time.monotonic()
        self._say_at = _SAY_AFTER_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it. Idempotent."""
        self._over.set()

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            if now - looked > 5 * _LOOK_EVERY_S:
                # This process was stopped, or starved: the silence was its own.
                self._seen.clear()
                self._progress_at = now
            looked = now
            try:
                self._look(now)
            except Exception as error:  # noqa: BLE001 (Ray is going down, or its store does not answer for a while)
                logger.info("The watch could not look: %s", error)

    def _look(self, now: float) -> None:
        beats: dict[str, pulse.Beat] = {}
        for part in self._parts():
            beat = pulse.last_beat(part.actor_id)
            if beat is None:
                continue  # it is being started, which has a deadline of its own
            beats[part.name] = beat
            seen = self._seen.get(part.actor_id)
            if seen is None or (seen.beat.pid, seen.beat.number) != (beat.pid, beat.number):
                ended = seen is not None and seen.ended and seen.beat.pid == beat.pid
                seen = self._seen[part.actor_id] = _Seen(beat, now, ended)
            silent_s = now - seen.since
            cause = None
            if silent_s > self._silence_s:
                cause = Cause(f"it has given no sign of life for {silent_s:.0f} s")
            elif (wait := beat.stuck()) is not None:
                cause = Cause(f"it has waited for {wait}", wait.detail)
            if cause is not None and not seen.ended and is_alive_as(part.actor_id, beat.pid):
                seen.ended = True
                self._faults.causes[part.actor_id] = cause
                end_actor(part.handle, restart=part.restarts)
        self._say_who_waits(beats, now)

    def _say_who_waits(self, beats: dict[str, pulse.Beat], now: float) -> None:
        """A line when nothing has got done for half a minute, a minute, two."""
        beats = {"this process": pulse.present()} | beats
        progress = sum(beat.progress for beat in beats.values())
        phase = activity.present()
        if progress != self._progress or phase is None or not phase.expects_progress:
            self._progress, self._progress_at, self._say_at = progress, now, _SAY_AFTER_S
            return
        if now - self._progress_at < self._say_at:
            return
        silent = [
            part.name
            for part in self._parts()
            if (seen := self._seen.get(part.actor_id)) and now - seen.since > _A_WHILE_S
        ]
        waits = [
            f"{name} waits for {wait}"
            for name, beat in beats.items()
            for wait in beat.waits[:1]
            if wait.seconds > _A_WHILE_S and name not in silent
        ]
        who = (
            "; ".join([*(f"{name} gives no sign of life" for name in silent), *waits])
            or "no process of the run waits for another; Ray itself may be stuck"
        )
        line = f"Nothing has got done for {now - self._progress_at:.0f} s while {phase.name}: {who}."
        self._faults.report("stall", line)
        self._say_at *= 2
