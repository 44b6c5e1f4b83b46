"""A run's side of its guard: a process beside it that ends everything at a second signal, when its orderly end takes
too long, or when a process dies without which it is over. See `guard_process`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from proxmo_rllib.machine import guard_process

# For each step of an orderly end; for the whole of it after a signal before there was anything to save.
SHUTDOWN_S = 30.0
IMPATIENT_S = 10.0
# The guard ends everything sooner.
_END_S = 5.0


class Guard:
    """Starts the guard at the beginning of a `with` block of the main thread, and dismisses it at the end.

    Args:
        terminal: file descriptor where the user reads.
        log: file that is told too.
        checkpoint: a path that is there as soon as there is something to go on from; None where nothing ever is.
        words: how to go on from it.
    """

    def __init__(self, terminal: int, log: Path, checkpoint: Path | None = None, words: str = "") -> None:
        self._terminal, self._log = terminal, log
        self._farewell = checkpoint and {"checkpoint": str(checkpoint), "words": words}

    def __enter__(self) -> Self:
        read_control, self._control = os.pipe()
        read_signals, self._signals = os.pipe()
        back, write_back = os.pipe()
        settings = {
            "run": os.getpid(),
            "control": read_control,
            "signals": read_signals,
            "back": write_back,
            "terminal": self._terminal,
            "log": str(self._log),
            "farewell": self._farewell,
            "impatient_s": IMPATIENT_S,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", guard_process.__file__, json.dumps(settings)],
            pass_fds=[read_control, read_signals, write_back, self._terminal],
            stdin=subprocess.DEVNULL,
        )
        for number in (read_control, read_signals, write_back):
            os.close(number)
        lines = os.fdopen(back, "rb", buffering=0)
        lines.readline()  # from here on the run may be killed
        threading.Thread(target=_leave_when_told, args=(lines,), daemon=True, name="guard").start()
        os.set_blocking(self._signals, False)
        # The interpreter's own handler in C writes here, also while Python is stuck.
        self._old_wakeup = signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        self._tell(bye=True)
        self._process.wait()
        os.close(self._control)
        os.close(self._signals)

    def be_patient(self) -> None:
        """From here on the first signal is the run's affair, and the second ends everything."""
        self._tell(patient=True)

    def watch_own_ray(self) -> None:
        """Ends the run with a word when a process of the Ray that this process has started dies."""
        from ray._private.worker import global_worker

        started = getattr(global_worker.node, "all_processes", {}) or {}
        vital = ("raylet", "gcs_server")
        self._tell(own={name: started[name][0].process.pid for name in vital if started.get(name)})

    def wait_for_end(self) -> None:
        """Waits for the guard to end this process, as it does after a second signal; returns if there is no guard."""
        time.sleep(_END_S)

    def outcome(self, text: str, code: int) -> None:
        """What is printed and exited with, if what follows the run's end takes too long."""
        self._tell(outcome=text, code=code)

    @contextlib.contextmanager
    def deadline(self, what: str, seconds: float = SHUTDOWN_S) -> Iterator[None]:
        """After so many seconds within it everything is killed, with a word.

        Args:
            what: goes on, such as "stopping Ray".
            seconds: that it may take.
        """
        self._tell(own={}, deadline=seconds, what=what)  # what is stopped is not missed
        try:
            yield
        finally:
            self._tell(deadline=None)

    def _tell(self, **line: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: the run goes on without one
            os.write(self._control, json.dumps(line).encode() + b"\n")


def _leave_when_told(lines: IO[bytes]) -> None:
    with lines:
        for line in lines:
            os._exit(json.loads(line)["leave"])
