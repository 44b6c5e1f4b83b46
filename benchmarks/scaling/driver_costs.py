"""What the driver's own code costs beside each environment runner more: timed on the code itself.

`GroupStream` and `Dealer` run as they are, with runners that have always answered already. What Ray takes for a call is
measured apart (`measure`).
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.inference.client import PoolClient
from proxmo_rllib.learner.training_data import GroupedTrainingData
from proxmo_rllib.orchestration.dealing import Dealer
from proxmo_rllib.orchestration.runners import Runners
from proxmo_rllib.orchestration.stream import GroupStream
from proxmo_rllib.rollouts.background_play import PlayedSoFar
from proxmo_rllib.types import Assignment

NUMBERS = (4, 16, 64, 192)  # of environment runners
_GROUPS = 16  # that each of them plays


class _Answering(Runners):
    """Runners whose calls are over as soon as they are made."""

    def __init__(self, count: int) -> None:
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        manager = FaultTolerantActorManager([SimpleNamespace() for _ in range(count)])
        super().__init__(SimpleNamespace(_worker_manager=manager), lambda: None, FaultLog())
        self._calls = itertools.count()
        self._results: dict[Any, Any] = {}

    def call(self, number: int, function: Callable[[Any], Any]) -> Any:
        made = next(self._calls)
        self._results[made] = function(_Player())
        return made

    def first_of(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        return [calls[0]]

    def result(self, number: int, call: Any) -> Any:
        return self._results.pop(call)


class _Everything(frozenset[str]):
    """Ids of the groups that are being played: all that it is asked for."""

    def __contains__(self, group_id: object) -> bool:
        return True


class _Player:
    def play_on(self, share: Sequence[Assignment], **_: Any) -> PlayedSoFar:
        return PlayedSoFar((), {}, _Everything())

    def play(self, share: Sequence[Assignment]) -> SimpleNamespace:
        return SimpleNamespace(group_ids=[each.group_id for each in share], lost={})


def stream_pass_s(count: int) -> float:
    """Seconds for `GroupStream` to note one answer, and to call the runner again."""
    numbers = itertools.count()
    runners = _Answering(count)
    stream = GroupStream(runners, lambda n: _deal(n, numbers), lambda: None, FaultLog(), batch=1, max_staleness=1)
    stream._batch = _GROUPS * count
    stream.updated(0)
    passes = max(20, 2 * count)

    def once() -> None:
        for _ in range(passes):
            stream._top_up(stream._batch)
            stream._hand_out()
            stream._collect()

    return best(once) / passes


def round_pass_s(count: int) -> float:
    """Seconds for `Dealer` to note one share that was played."""
    runners = _Answering(count)
    dealer = Dealer(runners, None, lambda: None, FaultLog())
    assignments = _deal(_GROUPS * count, itertools.count())
    return best(lambda: dealer.play(assignments, lambda runner, share, _: (runner.play(share), None))) / count


def route_s() -> float:
    """Seconds to choose an engine, for each one that there is."""

    def seconds(count: int) -> float:
        client = PoolClient(dict.fromkeys(range(count)), 0)  # type: ignore[arg-type]
        return best(lambda: [client._route(place) for place in range(500)]) / 500

    return (seconds(512) - seconds(8)) / 504


def shard_s() -> float:
    """Seconds to divide groups among learners, for each group and learner."""
    groups, learners = 512, 32
    tokens = np.random.default_rng(0).integers(100, 1000, groups).tolist()
    data = GroupedTrainingData(group_refs=[None] * groups, group_tokens=tokens)
    return best(lambda: data.shard(learners)) / (groups * learners)


def fitted(seconds: Callable[[int], float]) -> tuple[float, float, float]:
    """a, b and c of a + b n + c n², none of them negative, for some numbers n; relative errors are made small."""
    measured = np.array([seconds(number) for number in NUMBERS])
    columns = np.array([[1.0, number, number**2] for number in NUMBERS]) / measured[:, None]
    a, b, c = nnls(columns, np.ones(len(NUMBERS)))[0].tolist()
    return a, b, c


def best(call: Callable[[], Any], times: int = 5) -> float:
    """The median of the processor's seconds of a call: other processes change them little."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


def _deal(count: int, numbers: Any) -> list[Assignment]:
    return [Assignment(f"0-{next(numbers)}", "task", 0, 8) for _ in range(count)]
