"""The processes of a run: found among this process's descendants by what they are called, and ended whatever happens.

This process takes in orphans (Linux's PR_SET_CHILD_SUBREAPER), so that what a killed parent leaves stays findable, and
nothing else on the machine is ever touched. Titles are those of Ray 2.60 and vLLM 0.32.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import psutil

_SUBREAPER = 36  # of prctl(2)
#: What a part of a run is called, as the beginning of its title.
PARTS = {
    "runner": r"ray::TextEnvRunner",
    "engine": r"ray::InferenceActor",
    "EngineCore": r"VLLM::EngineCore",
    "learner": r"ray::(\w*Learner|_WrappedExecutable)",
    "GCS": r"\S*/gcs_server\b",
    "raylet": r"\S*/raylet/raylet\b",
}
_OTHERS = {
    "idle worker": r"ray::IDLE",
    "agent": r"ray::(DashboardAgent|RuntimeEnvAgent)",
    "monitor": r"\S*python\S* (-u )?\S*/ray/\S*\.py",
    "driver": r"\S*python\S* -m proxmo_rllib\.cli",
    "ray start": r"\S*python\S* \S*/bin/ray ",
}


_started: set[int] = set()  # process ids


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """As `subprocess.Popen`, in a session of its own and with nothing to read."""
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    _started.add(started.pid)
    return started


def adopt_orphans() -> None:
    """From now on a process whose parent dies becomes a child of this one, if it descends from it."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER): Linux 3.4 or later is needed")


def living(root: psutil.Process | None = None) -> list[psutil.Process]:
    """All descendants that have not ended; what nobody else waits for is reaped."""
    me = psutil.Process()
    found = []
    for process in (root or me).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            elif process.ppid() == me.pid and process.pid not in _started:  # Popen waits for those itself
                os.waitpid(process.pid, os.WNOHANG)
    return found


def title(process: psutil.Process) -> str:
    """The command line in one string; "" if it is gone."""
    try:
        return " ".join(process.cmdline()).strip() or process.name()
    except psutil.Error:
        return ""


def part_of(process: psutil.Process) -> str:
    """What it is in a run: a name in `PARTS`, or what else it is."""
    name = title(process)
    for part, pattern in {**PARTS, **_OTHERS}.items():
        if re.match(pattern, name):
            return part
    return "other"


def find(part: str, among: Iterable[psutil.Process] | None = None) -> list[psutil.Process]:
    """The living processes that are this part, by process id."""
    found = [process for process in (living() if among is None else among) if re.match(PARTS[part], title(process))]
    return sorted(found, key=lambda process: process.pid)


def in_words(processes: Iterable[psutil.Process]) -> str:
    """Such as "2 x runner, 1 x raylet"."""
    counts = Counter(part_of(process) for process in processes)
    return ", ".join(f"{count} x {part}" for part, count in sorted(counts.items()))


def send(processes: Iterable[psutil.Process], sign: signal.Signals) -> None:
    """Signals processes; those that are gone are left out."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(sign)


def end_all(deadline_s: float = 30.0) -> None:
    """Kills every descendant, and what it leaves.

    Raises:
        TimeoutError: some are still there after that many seconds.
    """
    until = time.monotonic() + deadline_s
    while left := living():
        if time.monotonic() > until:
            raise TimeoutError(f"still alive after {deadline_s:.0f} s of SIGKILL: {in_words(left)}")
        send(left, signal.SIGKILL)
        time.sleep(0.1)
