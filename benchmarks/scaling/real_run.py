"""Real iterations of the quickstart, and the processor time of each of its processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from benchmarks.busy_machine import cpu_seconds
from proxmo_rllib.learner.training_data import GroupedTrainingData
from proxmo_rllib.machine.actors import process_of
from proxmo_rllib.rollouts.agents import RandomScript
from proxmo_rllib.training_run.progress import Progress
from proxmo_rllib.types import Group

WARM_UP = 3  # iterations


def example(engines: int = 1, max_staleness: int = 0) -> Any:
    """The quickstart's config, with the same work in each iteration."""
    from tuned_examples.quickstart import config

    return (
        config.copy(copy_frozen=False)
        .inference(num_engines=engines)
        .training(lr=0.0, entropy_coef=0.0, max_staleness=max_staleness)
        .evaluation(panel=None, evaluation_interval=None)
        .debugging(record_groups=0)
    )


@contextlib.contextmanager
def running(config: Any) -> Iterator[Any]:
    """An algorithm that is warm, and is stopped at the end."""
    algorithm = config.build_algo()
    try:
        for _ in range(WARM_UP):
            algorithm.train()
        yield algorithm
    finally:
        algorithm.stop()


@dataclass(frozen=True, slots=True)
class Played:
    """Real iterations.

    Attributes:
        groups: of all of them.
        cpu: seconds of a core for a turn while they were played, by the kind of process.
        others: cores that Ray's own processes took meanwhile.
        strangers: cores that other work on the machine took.
        learning, transfer, between: seconds of each iteration.
        tokens: of each.
    """

    groups: list[Group]
    cpu: dict[str, float]
    others: float
    strangers: float
    learning: list[float]
    transfer: list[float]
    between: list[float]
    tokens: list[int]


def watch(algorithm: Any, iterations: int) -> Played:
    """Trains, and looks at what it takes."""
    processes = Processes(algorithm)
    data: list[GroupedTrainingData] = []
    cpu: list[dict[str, float]] = []
    seconds: list[float] = []
    collect = algorithm._sampling.collect

    def watched() -> GroupedTrainingData:
        before, began = processes.cpu_s(), time.perf_counter()
        data.append(collect())
        seconds.append(time.perf_counter() - began)
        cpu.append({kind: now - before[kind] for kind, now in processes.cpu_s().items()})
        return data[-1]

    algorithm._sampling.collect = watched
    learning, transfer, between, groups = [], [], [], []
    started, (machine, ours) = time.perf_counter(), cpu_seconds([])
    for _ in range(iterations):
        began = time.perf_counter()
        progress = Progress.from_result(algorithm.train(), 0.0)
        whole = time.perf_counter() - began
        learning.append(progress.learning_s)
        transfer.append(progress.transfer_s)
        between.append(whole - progress.sampling_s - progress.learning_s - progress.transfer_s)
        groups += ray.get(list(data[-1].group_refs))
    strangers = (np.subtract(cpu_seconds([]), (machine, ours)) * (1, -1)).sum() / (time.perf_counter() - started)
    algorithm._sampling.collect = collect
    turns = sum(len(episode) for group in groups for episode in group.episodes)
    sums = {kind: sum(each[kind] for each in cpu) for kind in cpu[0]}
    return Played(
        groups,
        {kind: sums[kind] / turns for kind in ("core", "actor", "runner")},
        sums["others"] / sum(seconds),
        max(0.0, float(strangers)),
        learning,
        transfer,
        between,
        [sum(each.group_tokens) for each in data],
    )


def scripted_turn_s(algorithm: Any) -> float:
    """Seconds of a core that a turn takes an environment runner beside asking the engine: with a script that plays."""
    processes = Processes(algorithm)
    assignments = algorithm._sampler.deal(2 * algorithm.config.num_groups, algorithm.config.group_size)
    algorithm.play_groups(assignments[:2], script=RandomScript)
    before = processes.cpu_s()["runner"]
    groups = algorithm.play_groups(assignments, script=RandomScript)
    turns = sum(len(episode) for group in groups for episode in group.episodes)
    return (processes.cpu_s()["runner"] - before) / turns


class Processes:
    """Of a run with one engine and one environment runner, by their kind."""

    def __init__(self, algorithm: Any) -> None:
        runners = [process_of(handle) for handle in algorithm._runners.handles().values()]
        actors = ray.get([handle.check_health.remote() for handle in algorithm.pool.handles])
        cores = [child.pid for pid in actors for child in psutil.Process(pid).children(recursive=True)]
        known = {*runners, *actors, *cores}
        others = [child.pid for child in psutil.Process().children(recursive=True) if child.pid not in known]
        self._pids = {"runner": runners, "actor": actors, "core": cores, "others": others}

    def cpu_s(self) -> dict[str, float]:
        """Seconds of a core so far."""
        return {kind: sum(map(_cpu_s, pids)) for kind, pids in self._pids.items()}


def _cpu_s(pid: int | None) -> float:
    """Of a process, to the nanosecond: the kernel's count of its threads."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has ended
            total += int(thread.read_text().split()[0])
    return total / 1e9
