"""Processors: how many there are, how a run's processes share them, and how busy they are.

A run has an engine, a Learner and environment runners, and a machine has other people's processes. The engine and the
Learner take turns, so each may use what the other leaves; what counts is that nobody spins while it waits.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

# Ray gives its workers a niceness of 15, a thirtieth of the time of anything else on a core: beside two busy processes
# on two cores an engine does not start in five minutes.
_NICENESS = "RAY_worker_niceness"
# Threads of a loop that wait for the slowest sleep, by the words of GNU's OpenMP and of Intel's. Spinning, they take
# the core from the one that they wait for as soon as another process is on it.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def share_processors(environment: MutableMapping[str, str]) -> None:
    """Settings with which a run's processes get their share beside others; those that are set stay.

    They are read once, by Ray when it starts a cluster and by torch when it is imported, and processes inherit them.

    Args:
        environment: of this process.
    """
    for name, value in {_NICENESS: "0", **_WAITING}.items():
        environment.setdefault(name, value)


def available_cores() -> int:
    """The cores that this process may use: affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, _, period = quota_file.read_text().strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = max(1, min(cores, int(quota) // int(period)))
    return cores


def limit_threads() -> None:
    """torch's threads in this process: no more than the cores that it may use.

    torch counts the machine's cores and knows nothing of a container's quota: threads beyond it wait for each other.
    Ray limits those of its actors by what they reserve; an engine has its own (`num_cpus_per_engine`).
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def load_text() -> str:
    """How busy the machine of this process is, in words: "3.1 processes want its 2 cores"."""
    wanting, cores = os.getloadavg()[0], available_cores()
    text = f"{wanting:.1f} processes want its {cores} cores"
    return f"{text}, more than there are: each waits for its turn" if wanting > cores + 0.5 else text
