"""How each fault is brought about, and what has to be done afterwards."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from benchmarks.faults import processes
from benchmarks.faults.cluster import Cluster
from benchmarks.faults.training import Training

SUSPENDED_S = 20.0  # how long a driver is stopped: a laptop that sleeps, `kill -STOP` by mistake


@dataclass(frozen=True, slots=True)
class Injected:
    """What was done.

    Attributes:
        victims: processes that were signalled.
        part: of which the victims have to be replaced, if any.
        held_s: seconds that the injection itself took.
        undo: makes the place whole again, before a run is resumed in it.
    """

    victims: tuple[psutil.Process, ...] = ()
    part: str | None = None
    held_s: float = 0.0
    undo: Callable[[], None] = field(default=lambda: None)


class Injection(Protocol):
    """Brings a fault about in a run that is under way."""

    def __call__(self, training: Training, cluster: Cluster | None, rng: random.Random) -> Injected: ...


def signal_one(part: str, sign: signal.Signals) -> Injection:
    """One process of a part, drawn by lot."""

    def inject(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
        victim = rng.choice(processes.find(part))
        processes.send([victim], sign)
        replaced = None if part in ("GCS", "raylet") else part
        return Injected((victim,), replaced, undo=lambda: processes.send([victim], signal.SIGKILL))

    return inject


def kill_driver(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
    """The process that holds the algorithm: SIGKILL."""
    victim = training.driver_process
    processes.send([victim], signal.SIGKILL)
    return Injected((victim,))


def suspend_driver(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
    """SIGSTOP, and SIGCONT some time later."""
    victim = training.driver_process
    processes.send([victim], signal.SIGSTOP)
    time.sleep(SUSPENDED_S)
    processes.send([victim], signal.SIGCONT)
    return Injected((victim,), held_s=SUSPENDED_S)


def signal_node(sign: signal.Signals, *, joins: bool) -> Injection:
    """All processes of the second node at once; another node joins as soon as it has started, or none does."""

    def inject(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
        assert cluster is not None, "the fault asks for a cluster"
        victims = cluster.second_node()
        if not any(processes.part_of(victim) in ("runner", "engine") for victim in victims):
            raise RuntimeError(f"the second node has no part of the run, only {processes.in_words(victims)}")
        processes.send(victims, sign)
        if joins:
            cluster.add_node()
        return Injected(tuple(victims), undo=lambda: processes.send(victims, signal.SIGKILL))

    return inject


def fill_disk(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
    """The run folder's file system has not a byte left."""
    ballast = training.run / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return Injected(undo=lambda: ballast.unlink(missing_ok=True))


def make_read_only(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
    """The folder of checkpoints, in the run's own view of the file system."""
    folder = str(training.run / "checkpoints")
    view = ["nsenter", f"--target={training.driver_pid}", "--mount"]
    subprocess.run([*view, "mount", "--bind", folder, folder], check=True)
    subprocess.run([*view, "mount", "-o", "remount,bind,ro", folder], check=True)

    def undo() -> None:  # with the last process of a run that ended, its view is gone
        subprocess.run([*view, "umount", "--lazy", folder], check=False, capture_output=True)

    return Injected(undo=undo)
