"""The Algorithm's process: deals groups, has them learned from, hands out weights; it does one thing after the other.

`_synchronous` is `Dealer.play`, `_ahead` is `GroupStream.take`, `_learn` is `Learners.update`, `_transfer` is
`ProxMO._transfer_weights`. Each simulated runner and engine stands for several that are alike; what the driver does for
them is counted for all.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.scaling.constants import Times, quadratic
from benchmarks.scaling.events import Clock, Process, Processors, Signal, Story
from benchmarks.scaling.playing import Engine, Group, Runner
from benchmarks.scaling.workload import Workload


@dataclass(frozen=True, slots=True)
class Layout:
    """What a run has, and how it is set.

    Attributes:
        engines: how many.
        runners: environment runners.
        learners: processes that learn; 0 for the driver's own.
        num_groups: an iteration, of all.
        group_size: episodes of each.
        max_staleness: as the setting.
        together: whether everything is on one node. Otherwise the driver has one, each learner has one, and each engine
            has one with its share of the runners.
    """

    engines: int
    runners: int
    learners: int
    num_groups: int
    group_size: int = 8
    max_staleness: int = 0
    together: bool = False

    def fewer(self, most: int) -> int:
        """How many engines, runners and groups each simulated one stands for, so that there are at most so many."""
        number = max(1, math.ceil(max(self.engines, self.runners) / most))
        while self.engines % number or self.runners % number or self.num_groups % number:
            number -= 1
        return number


@dataclass(frozen=True, slots=True)
class Iteration:
    """What was simulated of an iteration; times are seconds.

    Attributes:
        began, ended: when.
        sampling: until there were groups enough.
        learning: the update.
        transfer: of the weights, with the check.
        between: after all that.
        groups: numbers of those that were learned from.
        turns: in them, of all that they stand for.
        tokens_by_age: sampled tokens in them by weight updates since.
        busy: seconds in which each part was, the mean over its members, by its name.
        worked: seconds of a core that the processes which play were given while groups were sampled, by their kind.
    """

    began: float
    ended: float
    sampling: float
    learning: float
    transfer: float
    between: float
    groups: tuple[int, ...]
    turns: int
    tokens_by_age: dict[int, int]
    busy: dict[str, float]
    worked: dict[str, float]

    @property
    def seconds(self) -> float:
        """The whole."""
        return self.ended - self.began


@dataclass(slots=True)
class _Polled:
    """A runner, and the call that it was made."""

    runner: Runner
    load: int = 0  # groups that it plays
    is_called: bool = False
    played: list[Group] = field(default_factory=list)


class Training:
    """A run.

    Args:
        times: of all parts.
        workload: what is played.
        layout: what there is.
        seed: of what is drawn.
        most: engines and runners that are simulated one by one.

    Attributes:
        clock: of the run.
        engines: those that are simulated.
        runners: likewise.
        driver: the Algorithm's process.
        learner: all learners as one; None where the driver learns.
        cable: what goes through the object store of the driver's node.
        iterations: so far.
    """

    def __init__(self, times: Times, workload: Workload, layout: Layout, seed: int = 0, most: int = 16) -> None:
        self.times, self.layout = times, layout
        self.stands_for = layout.fewer(most)
        self.clock = Clock()
        self.iterations: list[Iteration] = []
        self._workload = workload
        self._rng = random.Random(seed)
        self._number = 0
        self._updates = -1
        self._learning_s = 0.0  # of the driver, where it learns
        shared = Processors(self.clock, times.cores)
        node = [shared if layout.together else self._node() for _ in range(layout.engines // self.stands_for)]
        hop = times.driver.hop_s
        self.engines = [Engine(self.clock, times.engine, hop, each) for each in node]
        self.runners = [
            Runner(self.clock, times.runner, times.driver, node[i % len(node)], self.engines, self.stands_for)
            for i in range(layout.runners // self.stands_for)
        ]
        self.driver = Process(self.clock, shared)
        self.learner = Process(self.clock, shared if layout.together else self._node()) if layout.learners else None
        self.cable = Process(self.clock)
        self._dealt: deque[Group] = deque()  # with staleness: not learned from yet, in the order of dealing
        self._queue: deque[Group] = deque()
        self._arrived: set[int] = set()
        self._polled = [_Polled(runner) for runner in self.runners]
        self._answers: deque[_Polled] = deque()
        self._on_answer: Signal | None = None

    def _node(self) -> Processors:
        """Of a part of the run: as many cores as there are processes need no count."""
        per_engine = 2 + math.ceil(self.layout.runners / self.layout.engines)
        return Processors(self.clock, math.inf if self.times.cores >= per_engine else self.times.cores)

    @property
    def batch(self) -> int:
        """Groups of an iteration, of those that are simulated."""
        return self.layout.num_groups // self.stands_for

    def run(self, iterations: int) -> None:
        """Simulates so many iterations."""
        self.clock.run(self._run(iterations))

    def _run(self, iterations: int) -> Story:
        yield from self._transfer()
        for _ in range(iterations):
            began, before, worked = self.clock.now, self._busy(), self._worked()
            groups: list[Group] = []
            yield from (self._ahead(groups) if self.layout.max_staleness else self._synchronous(groups))
            yield self.driver.spend(self._for_all(sum(group.turns for group in groups)) * self.times.driver.put_s)
            ages = self._ages(groups)
            sampled, worked = self.clock.now, {kind: now - worked[kind] for kind, now in self._worked().items()}
            yield from self._learn(groups)
            learned, spent = self.clock.now, self.driver.busy_s
            yield from self._transfer()
            handed = self.clock.now
            waited = handed - learned - (self.driver.busy_s - spent)
            yield self.driver.spend(self.times.driver.between_s)
            self.iterations.append(
                Iteration(
                    began,
                    self.clock.now,
                    sampled - began,
                    learned - sampled,
                    handed - learned,
                    self.clock.now - handed,
                    tuple(group.number for group in groups),
                    round(self._for_all(sum(group.turns for group in groups))),
                    ages,
                    {part: now - before[part] for part, now in self._busy().items()} | {"transfer": waited},
                    worked,
                )
            )

    def _busy(self) -> dict[str, float]:
        """Seconds so far."""
        learner = self.driver if self.learner is None else self.learner
        return {
            "engines": statistics.fmean(engine.core.busy_s for engine in self.engines),
            "runners": statistics.fmean(runner.loop.busy_s for runner in self.runners),
            "learners": self._learning_s if learner is self.driver else learner.busy_s,
            "driver": self.driver.busy_s - self._learning_s,
            "store": self.cable.busy_s,
        }

    def _worked(self) -> dict[str, float]:
        return {
            "core": sum(engine.core.worked_s for engine in self.engines),
            "actor": sum(engine.actor.worked_s for engine in self.engines),
            "runner": sum(runner.loop.worked_s for runner in self.runners),
        }

    def _for_all(self, count: float) -> float:
        return count * self.stands_for

    def _deal(self, count: int) -> list[Group]:
        groups = []
        for _ in range(count):
            home = self._rng.randrange(2**31)
            groups.append(Group(self._number, home, self._workload.group(self._rng, self.layout.group_size)))
            self._number += 1
        return groups

    def _ages(self, groups: Sequence[Group]) -> dict[int, int]:
        ages: dict[int, int] = {}
        for group in groups:
            for version, tokens in group.versions.items():
                age = self._updates - version
                ages[age] = ages.get(age, 0) + tokens
        return ages

    # What is asked of all at once.

    def _ask_runners(self, seconds: float = 0.0) -> Story:
        """Calls all environment runners, and waits for all: seconds of each one's work."""
        answered = Signal(self.clock, len(self.runners))
        for runner in self.runners:
            yield self.driver.spend(self._for_all(self.times.driver.ask_s))
            self.clock.after(self.times.driver.hop_s, runner.ask, seconds, answered.fire)
        yield answered

    def _ask_engines(self, seconds: float = 0.0, version: int | None = None) -> Story:
        """Calls all engines, and waits for all.

        Args:
            seconds: of an engine's work.
            version: of the weights that it is given; None where it is none.
        """
        answered = Signal(self.clock, len(self.engines))
        hop = self.times.driver.hop_s
        for number, engine in enumerate(self.engines):
            yield self.driver.spend(self._for_all(self.times.driver.ask_s))

            def arrived(engine: Engine = engine) -> None:
                engine.order(seconds, version).then(lambda: self.clock.after(hop, answered.fire))

            on_its_way = 0.0 if version is None else self._copying(number * self.stands_for)
            if seconds or version is not None:
                self.clock.after(hop + on_its_way, arrived)
            else:
                self.clock.after(2 * hop, answered.fire)
        yield answered

    def _copying(self, number: int) -> float:
        """Until the weights are on an engine's node: each node that has them gives them to another."""
        if self.layout.together:
            return 0.0
        return (
            math.ceil(math.log2(number + 2)) * self.times.transfer.weights_bytes / self.times.transfer.copy_bytes_per_s
        )

    def _heal(self) -> Story:
        yield from self._ask_runners()
        yield from self._ask_engines()

    # Groups that are waited for.

    def _synchronous(self, groups: list[Group]) -> Story:
        yield from self._heal()
        dealt = self._deal(self.batch)
        answers: deque[list[Group]] = deque()
        answered: list[Signal] = [Signal(self.clock)]

        def take(ended: list[Group]) -> None:
            answers.append(ended)
            answered[0].fire()

        shares = [dealt[place :: len(self.runners)] for place in range(len(self.runners))]
        shares = [share for share in shares if share]
        for runner, share in zip(self.runners, shares, strict=False):
            yield self.driver.spend(self._for_all(self.times.driver.ask_s))
            self.clock.after(self.times.driver.hop_s, runner.sample, share, take)
        for _ in shares:
            if not answers:
                answered[0] = Signal(self.clock)
                yield answered[0]
            yield from self._read(answers.popleft(), quadratic(self.times.driver.round_s, self.layout.runners))
        groups += dealt

    def _read(self, ended: Sequence[Group], noting_s: float) -> Story:
        """Takes in what runners have played: through the object store, and into the driver."""
        turns = self._for_all(sum(group.turns for group in ended))
        yield from self._through_store(turns)
        yield self.driver.spend(self._for_all(noting_s) + turns * self.times.driver.get_s)

    def _through_store(self, turns: float) -> Story:
        if turns and not self.layout.together:
            yield self.cable.spend(turns * self.times.driver.turn_bytes / self.times.transfer.copy_bytes_per_s)

    # Groups that are played ahead.

    def _ahead(self, groups: list[Group]) -> Story:
        yield from self._heal()
        while len(groups) < self.batch:
            if self._dealt and self._dealt[0].number in self._arrived:
                groups.append(self._dealt.popleft())
                self._arrived.discard(groups[-1].number)
                continue
            self._top_up(self.batch - len(groups))
            yield from self._hand_out()
            if not self._answers:
                self._on_answer = Signal(self.clock)
                yield self._on_answer
            polled = self._answers.popleft()
            yield from self._read(polled.played, quadratic(self.times.driver.stream_s, self.layout.runners))
            polled.is_called = False
            polled.load -= len(polled.played)
            self._arrived.update(group.number for group in polled.played)
        yield self.driver.spend(self._for_all(sum(group.turns for group in groups)) * self.times.driver.log_s)

    def _top_up(self, missing: int) -> None:
        dealt = self._deal(max(0, self.layout.max_staleness * self.batch + missing - len(self._dealt)))
        self._dealt.extend(dealt)
        self._queue.extend(dealt)

    def _hand_out(self) -> Story:
        free = [polled for polled in self._polled if not polled.is_called]
        shares: dict[int, list[Group]] = {id(polled): [] for polled in free}
        fair = math.ceil((sum(polled.load for polled in self._polled) + len(self._queue)) / len(self._polled))
        while self._queue and free:
            idlest = min(free, key=lambda polled: polled.load)
            if idlest.load >= fair:
                break  # the rest is for the others, when they have answered
            shares[id(idlest)].append(self._queue.popleft())
            idlest.load += 1
        for polled in free:
            if not polled.load:
                continue  # there is nothing to ask
            polled.is_called = True
            yield self.driver.spend(self._for_all(self.times.driver.ask_s))
            self.clock.after(
                self.times.driver.hop_s, polled.runner.play_on, shares[id(polled)], self._answering(polled)
            )

    def _answering(self, polled: _Polled) -> Callable[[list[Group]], None]:
        def answer(ended: list[Group]) -> None:
            polled.played = ended
            self._answers.append(polled)
            if self._on_answer is not None and not self._on_answer.fired:
                self._on_answer.fire()

        return answer

    # Learning, and the way of the weights.

    def _learn(self, groups: Sequence[Group]) -> Story:
        times, driver = self.times.learner, self.times.driver
        turns = self._for_all(sum(group.turns for group in groups))
        tokens = self._for_all(sum(group.tokens for group in groups))
        number = self.layout.learners
        if self.learner is None:
            began = self.clock.now
            yield self.driver.spend(times.update_s + times.token_s * tokens, times.threads)
            self._learning_s += self.clock.now - began
            return
        yield self.driver.spend(number * driver.ask_s + number * self.layout.num_groups * driver.shard_s)
        yield from self._through_store(turns)
        adding_up = 2 * (number - 1) / number * times.steps * times.gradient_bytes / times.allreduce_bytes_per_s
        work = times.update_s + (turns * times.get_s + tokens * times.token_s) / number + adding_up
        yield self.learner.spend(work, times.threads)

    def _transfer(self) -> Story:
        times = self.times
        exporting = self.learner or self.driver
        yield exporting.spend(times.learner.export_s, times.learner.threads if self.learner is None else 1)
        if self.learner is not None:
            self.learner.do(times.learner.snapshot_s, lambda: None)
        self._updates += 1
        yield from self._ask_engines(times.transfer.load_s, self._updates)
        yield from self._ask_engines()  # whether all are well
        yield from self._ask_engines(times.transfer.score_s)
        engines = self.layout.engines
        yield self.driver.spend(engines * times.driver.handle_s)
        yield from self._ask_runners(engines * times.runner.handle_s)
        if self.layout.max_staleness:
            self._top_up(self.batch)
            yield from self._hand_out()
