"""A clock, processors that processes share, and processes that do one thing after the other."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

#: What a story waits for: a `Signal`, or seconds.
Story = Generator[Any, None, None]


class Clock:
    """Simulated time. What is to happen at the same moment happens in the order in which it was said.

    Attributes:
        now: seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Has something called later."""
        heapq.heappush(self._heap, (self.now + seconds, self._count, call, args))
        self._count += 1

    def run(self, story: Story) -> None:
        """Runs a story to its end; what then is under way stays there.

        Raises:
            RuntimeError: nothing is left that could happen, and the story has not ended.
        """
        ended = Signal(self)
        self.tell(story, ended)
        while not ended.fired:
            if not self._heap:
                raise RuntimeError(f"At {self.now:g} s everybody waits for somebody else.")
            self.now, _, call, args = heapq.heappop(self._heap)
            call(*args)

    def tell(self, story: Story, ended: Signal | None = None) -> None:
        """Goes on with a story until it waits, and again when what it waits for is there."""
        try:
            awaited = next(story)
        except StopIteration:
            if ended is not None:
                ended.fire()
            return
        if isinstance(awaited, Signal):
            awaited.then(lambda: self.tell(story, ended))
        else:
            self.after(awaited, self.tell, story, ended)


class Signal:
    """Something that happens once, or so many times before it counts.

    Args:
        clock: of the simulation.
        count: times that it has to be fired.
    """

    def __init__(self, clock: Clock, count: int = 1) -> None:
        self._clock = clock
        self._left = count
        self._waiting: list[Callable[[], None]] = []

    @property
    def fired(self) -> bool:
        """Whether it has happened."""
        return self._left <= 0

    def fire(self) -> None:
        """It happens, once more."""
        self._left -= 1
        if self._left == 0:
            for call in self._waiting:
                self._clock.after(0.0, call)

    def then(self, call: Callable[[], None]) -> None:
        """Has something called when it has happened."""
        if self.fired:
            self._clock.after(0.0, call)
        else:
            self._waiting.append(call)


class Processors:
    """Cores that those who work share evenly; each thread has one core at most.

    All threads advance at the same rate, so that work ends in the order of the rate's integral (`_advanced`) at which
    it is done, and one event at a time is enough.

    Args:
        clock: of the simulation.
        cores: how many; infinite where nobody ever waits for one.
    """

    def __init__(self, clock: Clock, cores: float = math.inf) -> None:
        self._clock = clock
        self._cores = cores
        self._jobs: list[tuple[float, int, int, Callable[[], None]]] = []
        self._threads = 0
        self._advanced = self._since = 0.0
        self._rate = 1.0
        self._count = self._stamp = 0

    def work(self, seconds: float, done: Callable[[], None], threads: int = 1) -> None:
        """Works for so many seconds of a core, on each of some threads, and says when it is done."""
        if self._cores == math.inf:
            self._clock.after(seconds, done)
            return
        self._advance()
        heapq.heappush(self._jobs, (self._advanced + seconds, self._count, threads, done))
        self._count += 1
        self._threads += threads
        self._plan()

    def _advance(self) -> None:
        self._advanced += (self._clock.now - self._since) * self._rate
        self._since = self._clock.now

    def _plan(self) -> None:
        self._stamp += 1
        if self._jobs:
            self._rate = min(1.0, self._cores / self._threads)
            left = max(0.0, self._jobs[0][0] - self._advanced)
            self._clock.after(left / self._rate, self._end, self._stamp)

    def _end(self, stamp: int) -> None:
        if stamp != self._stamp:  # others have begun or ended since
            return
        self._advance()
        _, _, threads, done = heapq.heappop(self._jobs)
        self._threads -= threads
        self._plan()
        done()


class Process:
    """Does one thing after the other.

    Args:
        clock: of the simulation.
        processors: that it works on; its own if none are given, as a device is, or a cable.

    Attributes:
        worked_s: seconds of work that it was given, on one core that it has to itself.
    """

    def __init__(self, clock: Clock, processors: Processors | None = None) -> None:
        self._clock = clock
        self._processors = processors or Processors(clock)
        self._queue: deque[tuple[float, Callable[[], None], int]] = deque()
        self._works = False
        self._began = 0.0
        self._busy_s = 0.0
        self.worked_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds so far in which it had something to do."""
        return self._busy_s + (self._clock.now - self._began if self._works else 0.0)

    def do(self, seconds: float, done: Callable[[], None], threads: int = 1) -> None:
        """Does something after what it was given before, and says when it is done."""
        self.worked_s += seconds
        if self._works:
            self._queue.append((seconds, done, threads))
            return
        self._works = True
        self._began = self._clock.now
        self._processors.work(seconds, lambda: self._done(done), threads)

    def spend(self, seconds: float, threads: int = 1) -> Signal:
        """As `do`, for a story to wait for."""
        signal = Signal(self._clock)
        self.do(seconds, signal.fire, threads)
        return signal

    def _done(self, done: Callable[[], None]) -> None:
        if self._queue:
            seconds, following, threads = self._queue.popleft()
            self._processors.work(seconds, lambda: self._done(following), threads)
        else:
            self._works = False
            self._busy_s += self._clock.now - self._began
        done()
