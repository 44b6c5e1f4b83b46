"""The guard of a run: a small process beside the run's own, which outlives it and sees to its end. Run as a file.

    the run ──control: JSON lines──► guard ──JSON line: leave──► the run
            ──signals: a byte each──►

The run's own process may be stuck in C++, stopped, or be ended by Ray's C++ without a word. So it is not the one that
ends everything at a second signal, or says what died. Imports nothing but psutil: it has to be there within a moment.

Control lines, each with one key:
    {"patient": true}            from here on the first signal is the run's affair, and only the second ends it
    {"own": {"raylet": 123}}     processes without which the run is over
    {"deadline": 30, ...}        the orderly end, "what" of it goes on, has so many seconds; null: no deadline
    {"outcome": "...", "code": 0}  what to print, and to exit with, if the deadline passes after the run was over
    {"bye": true}                all is well
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

import psutil

# Walking through a large machine's processes takes some milliseconds.
# A process without which the run is over, and which is stopped, may be let go on for so long.
_STOPPED_S = 30.0
_LOOK_EVERY_S = 2.0
_HAS_PIDFD = hasattr(os, "pidfd_open")
# For the run's own process to leave by itself; it may be stopped, or hold Python's lock.
_LEAVE_S = 1.5
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Guard:
    """See the module.

    Args:
        run: the run's own process.
        control: read end of its control lines.
        signals: read end of its signals.
        back: write end, to tell it to leave.
        terminal: where the user reads.
        log: file that lines are appended to.
        farewell: what follows every line about an end: how to go on, where there is a checkpoint.
        impatient_s: seconds for an orderly end after a signal before there was anything to save.
    """

    def __init__(
        self,
        run: int,
        control: int,
        signals: int,
        back: int,
        terminal: int,
        log: str,
        farewell: Any,
        impatient_s: float,
    ) -> None:
        self._run = psutil.Process(run)
        self._control, self._signals, self._back, self._terminal = control, signals, back, terminal
        self._log, self._farewell, self._impatient_s = log, farewell, impatient_s
        self._patient = False
        self._came: list[int] = []
        self._own: dict[str, int] = {}
        self._vital: dict[int, psutil.Process] = {}
        self._stopped: dict[int, float] = {}  # since when, by process id
        self._ends: list[int] = []  # can be read from as soon as one of them ends
        self._deadline: tuple[float, float, str] | None = None  # time.monotonic(), seconds, what
        self._outcome: tuple[str, int] | None = None
        self._known: set[psutil.Process] = set()

    def watch(self) -> None:
        """Until the run is over, one way or the other."""
        text = b""
        os.write(self._back, b"{}\n")
        while True:
            wait_s = _LOOK_EVERY_S if self._deadline is None else max(0.0, self._deadline[0] - time.monotonic())
            files = [self._control, self._signals, *self._ends]
            ready, _, _ = select.select(files, [], [], min(_LOOK_EVERY_S, wait_s))
            self._remember()
            if self._control in ready:
                read = os.read(self._control, 1 << 16)
                *lines, text = (text + read).split(b"\n")
                if any(self._obey(json.loads(line)) for line in lines):
                    return
                if not read:
                    self._run_is_gone()
                    return
            if self._signals in ready and self._on_signals(os.read(self._signals, 64)):
                return
            if dead := self._dead():
                # The kernel ends Ray's processes with the run's own, maybe before that one's files are closed.
                if _alive(self._run):
                    self._end(f"{dead}, and the run with it", 1)
                else:
                    self._run_is_gone()
                return
            if self._deadline and time.monotonic() > self._deadline[0]:
                self._too_late(*self._deadline[1:])
                return

    def _obey(self, line: dict[str, Any]) -> bool:
        """Whether that was the last."""
        if "patient" in line:
            self._patient = line["patient"]
            self._came.clear()
        if "own" in line:
            self._watch_over(line["own"])
        if "deadline" in line:
            seconds = line["deadline"]
            self._deadline = None if seconds is None else (time.monotonic() + seconds, seconds, line["what"])
        if "outcome" in line:
            self._outcome = (line["outcome"], line["code"])
        return "bye" in line

    def _watch_over(self, own: dict[str, int]) -> None:
        for number in self._ends:
            os.close(number)
        self._own, self._ends = {}, []
        for name, pid in own.items():
            self._own[name] = pid
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it is dead already
                self._vital[pid] = psutil.Process(pid)
                if _HAS_PIDFD:
                    self._ends.append(os.pidfd_open(pid))

    def _on_signals(self, read: bytes) -> bool:
        """Whether they ended the run."""
        for number in read:
            if number in _SIGNALS:
                self._came.append(number)
        if len(self._came) > 1:
            self._end(f"stopped at once ({_SIGNALS[signal.Signals(self._came[-1])]})", 130)
            return True
        if self._came and not self._patient and self._deadline is None:
            self._deadline = (time.monotonic() + self._impatient_s, self._impatient_s, "stopping")
        return False

    def _too_late(self, seconds: float, what: str) -> None:
        text = f"{what} took more than {seconds:.0f} s: what was left of the run was killed"
        if self._outcome is None:
            self._end(text, 130 if self._came else 1)
        else:
            self._end(text, self._outcome[1], last=self._outcome[0])

    def _dead(self) -> str | None:
        """Which process died that the run cannot do without, or is stopped for good, in words."""
        for name, pid in self._own.items():
            if pid not in self._vital or not _alive(self._vital[pid]):
                return f"Ray's {name} (process {pid}) died"
            since = self._stopped.setdefault(pid, time.monotonic())
            if not _is_stopped(self._vital[pid]) or _is_stopped(self._run):  # somebody may have stopped all of it
                del self._stopped[pid]
            elif time.monotonic() - since > _STOPPED_S:
                return f"Ray's {name} (process {pid}) was stopped (SIGSTOP) and did not go on for {_STOPPED_S:.0f} s"
        return None

    def _run_is_gone(self) -> None:
        """It left without a word."""
        if self._came:  # while it ended Ray, which takes the handler of the next signal along
            self._end("stopped at once", 130)
            return
        text = f"the run's own process ({self._run.pid}) ended without a word: it was killed, or memory ran out"
        # Ray's C++ ends the run's process when its raylet dies.
        self._end(f"{text}, or {dead}" if (dead := self._dead()) else text, 1)

    def _remember(self) -> None:
        """Who belongs to the run, while that can be told: children of a process that dies become others'."""
        with contextlib.suppress(psutil.Error):
            self._known.update(self._run.children(recursive=True))
        self._known = {process for process in self._known if process.pid != os.getpid() and _alive(process)}

    def _end(self, text: str, code: int, last: str = "") -> None:
        """Says it, lets the run's own process leave, and kills whatever is left."""
        self._remember()
        self._say(text, last)
        with contextlib.suppress(OSError):
            os.write(self._back, json.dumps({"leave": code}).encode() + b"\n")
        _wait_for([self._run], _LEAVE_S)
        for _ in range(5):  # the last ones may start others
            victims = self._everyone()
            if not victims:
                return
            for process in victims:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            _wait_for(victims, 0.5)

    def _everyone(self) -> list[psutil.Process]:
        """Who is alive of the run's own process, those who belong to it, and their children."""
        found = {self._run, *self._known}
        for process in (self._run, *self._known):
            with contextlib.suppress(psutil.Error):
                found.update(process.children(recursive=True))
        return [process for process in found if process.pid != os.getpid() and _alive(process)]

    def _say(self, text: str, last: str) -> None:
        there = os.path.exists(self._farewell["checkpoint"]) if self._farewell else False
        lines = [text]
        if self._farewell:
            lines.append(self._farewell["words"] if there else "there is no checkpoint to go on from")
        show_cursor = "\n\x1b[?25h" if os.isatty(self._terminal) else ""
        _write(self._terminal, show_cursor + "\n".join([*lines, *filter(None, [last])]) + "\n")
        with contextlib.suppress(OSError):
            number = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            _write(number, "\n".join(lines) + "\n")


def _write(number: int, text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed
        os.write(number, text.encode())


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wait_for(processes: list[psutil.Process], seconds: float) -> None:
    """Until they are dead, or so many seconds. Whether their parents have noticed is of no interest."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(_alive(process) for process in processes):
        time.sleep(0.02)


def main() -> None:
    """Guards the run that the arguments describe."""
    os.setsid()  # the terminal's signals are for the run
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    Guard(**json.loads(sys.argv[1])).watch()


if __name__ == "__main__":
    main()
