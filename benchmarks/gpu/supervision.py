"""Has cases measured in a process of their own, each within its time, whatever becomes of that process.

A GPU that has met a forbidden address, or a process that the system kills for its memory, ends all of its process: the
case that was under way has a row that says so, and a new process goes on with the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

#: Seconds for a process to start and import what it needs.
STARTING_S = 300.0
_SAID = 2000  # last characters of what a process that ended had said


class Ended(Exception):
    """The process gave no answer: it took too long, or is no more."""


class Worker:
    """A process that measures cases, see `worker`.

    Args:
        command: of the process.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # what it starts ends with it
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""

    def ready(self, seconds: float) -> dict[str, Any]:
        """What is to stand in every row; an error if the process cannot measure.

        Raises:
            Ended: it says nothing within so many seconds.
        """
        return self._answer(seconds)

    def measure(self, case: str, seconds: float) -> dict[str, Any]:
        """The figures of a case.

        Raises:
            Ended: there are none within so many seconds.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is said below
            self._process.stdin.write(f"{case}\n".encode())
            self._process.stdin.flush()
        return self._answer(seconds)

    def end(self) -> None:
        """Ends the process, and those that it started; the guard of a run that is among them ends the run's Ray."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise Ended(f"it was not done after {seconds:.0f} s")
                part = self._process.stdout.read()
                if part == b"":
                    raise Ended(f"its process ended ({self._how()}), and had said: {self._last_words()}")
                self._rest += part or b""
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Ended(f"it answered no JSON: {line[:200]!r}") from None
        return answer

    def _how(self) -> str:
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-_SAID:].strip() or "nothing"


def command_of(module: str, tiny: bool) -> list[str]:
    """A worker's."""
    return [sys.executable, "-m", "benchmarks.gpu.worker", module, *(["--tiny"] if tiny else [])]


def measure_all(
    cases: Sequence[str], start: Callable[[], Worker], limit: float, left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """A row a case, in order, as soon as it is there.

    Args:
        cases: in words.
        start: makes a worker, or hands out one that was made before.
        limit: seconds that a case may take.
        left: seconds of the whole that are left.
    """
    worker: Worker | None = None
    first: dict[str, Any] = {}
    try:
        for case in cases:
            started = time.monotonic()
            try:
                if left() <= 0:
                    raise Ended("it was not begun: the time of the whole was over")
                if worker is None:
                    worker = start()
                    first = worker.ready(min(STARTING_S, left()))
                # What cannot be imported would not be the next time either: the same is said of every case.
                row = first if "error" in first else first | worker.measure(case, min(limit, left()))
            except Ended as error:
                said, _, more = str(error).partition("\n")
                row = {"error": said, "traceback": more} if more else {"error": said}
                if worker is not None:
                    worker.end()
                    worker = None
            yield {"case": case, "seconds": round(time.monotonic() - started, 1)} | row
    finally:
        if worker is not None:
            worker.end()
