"""A run that is to be gone within a period of grace after SIGTERM, as Slurm and Kubernetes give one.

SIGTERM ──► the iteration ends in time ──────────────────────────► checkpoint of it
        └─► it does not: while episodes are played, they are cut ──► checkpoint of the last finished iteration
                         while the learner updates, its end is waited for

While episodes are played, the learner is as it was at the end of the last iteration; the small rest of the algorithm's
state is remembered from there.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ray import cloudpickle

from proxmo_rllib import activity, preemption

# Beyond the save: for what a save is slower than the one before, and for the processes' end.
_SPARE_S = 2.0
_LOOK_AGAIN_S = 0.2
_PLAYING = ("playing", "playing the panel")


class Grace:
    """The period, and what has to be done within it. For the main thread, in which its signals arrive.

    Args:
        seconds: from SIGTERM to the end; 0 for no bound.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._save_s: float | None = None
        self._end = math.inf
        self._state = b""
        self._open = False

    def saved_in(self, seconds: float) -> None:
        """A save took so long."""
        self._save_s = seconds

    def remember(self, algo: Any) -> None:
        """An iteration is over: keeps what of the algorithm's state the next one changes while it plays."""
        if self._seconds:
            left_out = [name for name, _ in algo.get_checkpointable_components()]
            self._state = cloudpickle.dumps(algo.get_state(not_components=left_out))

    def go_back(self, algo: Any) -> None:
        """Brings the algorithm to the end of its last iteration, after the one that was running was cut."""
        algo.set_state(cloudpickle.loads(self._state))

    def begin(self) -> None:
        """SIGTERM came."""
        if not self._seconds:
            return
        self._end = time.monotonic() + self._seconds
        signal.signal(signal.SIGALRM, self._on_alarm)
        # A run that has saved nothing yet does not know how long it takes.
        needed = self._seconds / 2 if self._save_s is None else 1.5 * self._save_s + _SPARE_S
        signal.setitimer(signal.ITIMER_REAL, max(_LOOK_AGAIN_S, self._seconds - needed), _LOOK_AGAIN_S)

    @contextlib.contextmanager
    def may_cut(self) -> Iterator[None]:
        """Within it, what is played is cut in time: a KeyboardInterrupt, of which `preemption.was_cut` knows."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def over(self) -> None:
        """Nothing is left to be cut."""
        if math.isfinite(self._end):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def left(self, most: float) -> float:
        """Seconds for an orderly end, at least one; as many as are given if no signal came."""
        return max(1.0, min(most, self._end - _SPARE_S - time.monotonic()))

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        phase = activity.present()
        if self._open and phase is not None and phase.name in _PLAYING:
            self._open = False
            preemption.cut()
