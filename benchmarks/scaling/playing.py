"""Engines and environment runners, turn by turn: who waits for whom is as in the code, how long for is in `constants`.

runner: CPU of a turn ─► 2 ms window ─► Ray call ─► engine's actor ─► core: one step after the other ─► actor ─► runner
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.scaling.constants import DriverTimes, EngineTimes, RunnerTimes
from benchmarks.scaling.events import Clock, Process, Processors, Signal
from benchmarks.scaling.workload import Turn

# As in `inference/client.py`.
_MAX_IMBALANCE = 32
# As in `orchestration/stream.py`.
_WAIT_S = 0.2


@dataclass(slots=True, eq=False)
class Group:
    """A group that was dealt.

    Attributes:
        number: in the order of dealing.
        home: the engine of its prompts, before it is taken modulo their number.
        episodes: their turns.
        versions: sampled tokens by the version of the weights.
        ended: whether all episodes have.
    """

    number: int
    home: int
    episodes: Sequence[Sequence[Turn]]
    left: int = 0
    versions: Counter[int] = field(default_factory=Counter)
    cached: tuple[Engine, int] | None = None  # where its first prompt was computed, under which weights

    def __post_init__(self) -> None:
        self.left = len(self.episodes)

    @property
    def ended(self) -> bool:
        """Whether all episodes have."""
        return self.left == 0

    @property
    def turns(self) -> int:
        """Of all episodes."""
        return sum(map(len, self.episodes))

    @property
    def tokens(self) -> int:
        """That are learned from or seen."""
        return sum(new + sampled for episode in self.episodes for new, sampled in episode)


@dataclass(slots=True, eq=False)
class _Episode:
    group: Group
    turns: Sequence[Turn]
    place: int = 0  # of the next turn
    tokens: int = 0  # of the conversation so far
    cached: tuple[Engine, int, int] | None = None  # engine, loads of it, tokens


@dataclass(slots=True, eq=False)
class _Call:
    """Requests that travelled together."""

    runner: Runner
    engine: int
    episodes: list[_Episode]
    done: list[_Episode] = field(default_factory=list)  # whose responses are on their way to the runner


@dataclass(slots=True, eq=False)
class _Request:
    episode: _Episode
    call: _Call
    ends: int = 0  # the number of steps after which it has
    began: int = 0  # the step since which it samples under the present weights


class Engine:
    """Continuous batching: each step takes what waits, and gives every request a token.

    Attributes:
        actor: that talks.
        core: that computes.
        steps: so far.
    """

    def __init__(self, clock: Clock, times: EngineTimes, hop_s: float, processors: Processors) -> None:
        self._clock, self._times, self._hop_s = clock, times, hop_s
        self.actor = Process(clock, processors)
        self.core = Process(clock, None if times.on_device else processors)
        self.steps = 0
        self._version = self._loads = 0
        self._waiting: deque[_Request] = deque()
        self._running: list[tuple[int, int, _Request]] = []
        self._orders: deque[tuple[float, int | None, Signal]] = deque()
        self._number = 0
        self._again = 0  # tokens that have to be computed again
        self._works = False

    def receive(self, call: _Call) -> None:
        """Requests have arrived."""
        work = self._times.call_s + self._times.request_s * len(call.episodes)
        self.actor.do(work, lambda: self._admit(call))

    def order(self, seconds: float, version: int | None = None) -> Signal:
        """Something that it does between two steps.

        Args:
            seconds: of work.
            version: of the weights that it has afterwards; None where they stay.
        """
        done = Signal(self._clock)
        self._orders.append((seconds, version, done))
        self._wake()
        return done

    def _admit(self, call: _Call) -> None:
        self._waiting.extend(_Request(episode, call) for episode in call.episodes)
        self._wake()

    def _wake(self) -> None:
        if not self._works:
            self._works = True
            self._next()

    def _next(self) -> None:
        """Begins the next step, if there is anything to do."""
        if self._orders:
            seconds, version, done = self._orders.popleft()
            self.core.do(seconds, lambda: self._ordered(version, done))
            return
        if not self._waiting and not self._running:
            self._works = False
            return
        times = self._times
        tokens = self._again + len(self._running)
        self._again = 0
        while self._waiting and len(self._running) < times.max_num_seqs:
            new = self._new_tokens(self._waiting[0])
            if tokens + new > times.max_tokens and self._running:
                break
            request = self._waiting.popleft()
            self._remember(request)
            tokens += new
            request.began = self.steps
            request.ends = self.steps + max(1, request.episode.turns[request.episode.place][1])
            self._number += 1
            heapq.heappush(self._running, (request.ends, self._number, request))
        work = times.step_s + times.token_s * tokens + times.request_step_s * len(self._running)
        self.core.do(work, self._stepped)

    def _new_tokens(self, request: _Request) -> int:
        """Of its prompt, those that are not cached in whole blocks."""
        episode = request.episode
        whole = episode.tokens + episode.turns[episode.place][0]
        known = 0
        if episode.cached is not None and episode.cached[:2] == (self, self._loads):
            known = episode.cached[2]
        elif episode.place == 0 and episode.group.cached == (self, self._loads):
            known = whole - 1
        return whole - known // self._times.block * self._times.block

    def _remember(self, request: _Request) -> None:
        episode = request.episode
        if episode.place == 0:
            episode.group.cached = (self, self._loads)

    def _stepped(self) -> None:
        self.steps += 1
        ended: dict[int, list[_Request]] = {}
        while self._running and self._running[0][0] <= self.steps:
            request = heapq.heappop(self._running)[2]
            self._count(request)
            ended.setdefault(id(request.call), []).append(request)
        for requests in ended.values():
            self._hand_back(requests)
        self._next()

    def _count(self, request: _Request) -> None:
        """Notes under which weights its last tokens were sampled."""
        request.episode.group.versions[self._version] += self.steps - request.began
        request.began = self.steps

    def _hand_back(self, requests: list[_Request]) -> None:
        """Of a call. What ends until the actor comes to it goes with it."""
        call, tokens = requests[0].call, 0
        is_new = not call.done
        for request in requests:
            episode = request.episode
            new, sampled = episode.turns[episode.place]
            tokens += sampled
            episode.tokens += new + sampled
            episode.cached = (self, self._loads, episode.tokens - 1)
            call.done.append(episode)
        self.actor.do(self._times.request_token_s * tokens, lambda: None)
        if is_new:
            self.actor.do(self._times.chunk_s, lambda: self._answer(call))

    def _answer(self, call: _Call) -> None:
        done, call.done = call.done, []
        self._clock.after(self._hop_s, call.runner.answer, call.engine, done)

    def _ordered(self, version: int | None, done: Signal) -> None:
        if version is not None:
            for _, _, request in self._running:
                if self.steps > request.began:
                    self._count(request)
                # What the old weights have computed of it is computed again.
                episode = request.episode
                so_far = episode.turns[episode.place][1] - (request.ends - self.steps)
                self._again += episode.tokens + episode.turns[episode.place][0] + so_far
            self._version = version
            self._loads += 1
        done.fire()
        self._next()


class Runner:
    """One event loop that plays episodes, and one thread that takes calls one after the other.

    Attributes:
        loop: of it.
        playing: episodes that have begun.
    """

    def __init__(
        self,
        clock: Clock,
        times: RunnerTimes,
        driver: DriverTimes,
        processors: Processors,
        engines: Sequence[Engine],
        stands_for: int,
    ) -> None:
        self._clock, self._times, self._driver, self._engines = clock, times, driver, engines
        self._route_s = times.route_s * len(engines) * stands_for
        self.loop = Process(clock, processors)
        self.playing = 0
        self._pending: deque[_Episode] = deque()
        self._outbox: list[list[_Episode]] = [[] for _ in engines]
        self._outstanding = [0] * len(engines)
        self._ended: list[Group] = []
        self._on_end: Callable[[], None] = lambda: None
        self._tasks: deque[Callable[[], None]] = deque()
        self._is_called = False

    def sample(self, groups: Sequence[Group], done: Callable[[list[Group]], None]) -> None:
        """Plays groups, and says when all have ended."""

        def begin() -> None:
            self._on_end = lambda: end() if len(self._ended) == len(groups) else None
            self._play(groups)

        def end() -> None:
            ended, self._ended, self._on_end = self._ended, [], lambda: None
            self._return(lambda: done(ended), sum(g.turns for g in ended), self._driver.log_s)

        self._take_call(begin)

    def play_on(self, groups: Sequence[Group], done: Callable[[list[Group]], None]) -> None:
        """Plays these groups too, and says which have ended as soon as one has, or after a while."""
        waits = [True]

        def begin() -> None:
            self._play(groups)
            self._on_end = end
            if self._ended or not (self.playing or self._pending):
                end()
            else:
                self._clock.after(_WAIT_S, end)

        def end() -> None:
            if waits[0]:
                waits[0] = False
                ended, self._ended, self._on_end = self._ended, [], lambda: None
                self._return(lambda: done(ended), sum(g.turns for g in ended))

        self._take_call(begin)

    def ask(self, seconds: float, done: Callable[[], None]) -> None:
        """Something that it does when it has done what it was called for before."""
        self._take_call(lambda: self._return(done, 0, seconds=seconds))

    def _take_call(self, begin: Callable[[], None]) -> None:
        self._tasks.append(begin)
        if not self._is_called:
            self._is_called = True
            self._tasks.popleft()()

    def _return(self, done: Callable[[], None], turns: int, turn_s: float = 0.0, seconds: float = 0.0) -> None:
        """Sends what a call came to, and takes the next one."""

        def sent() -> None:
            self._clock.after(self._driver.hop_s, done)
            if self._tasks:
                self._tasks.popleft()()
            else:
                self._is_called = False

        self.loop.do(seconds + turns * (turn_s + self._times.send_s), sent)

    def _play(self, groups: Sequence[Group]) -> None:
        self._pending.extend(_Episode(group, turns) for group in groups for turns in group.episodes)
        self._begin()

    def _begin(self) -> None:
        while self._pending and self.playing < self._times.max_concurrent:
            self.playing += 1
            self._turn(self._pending.popleft())

    def _turn(self, episode: _Episode) -> None:
        """The environment, the prompt, and the request."""
        self._clock.after(self._times.wait_s, self._prompt, episode)

    def _prompt(self, episode: _Episode) -> None:
        self.loop.do(self._times.turn_s + self._times.request_s + self._route_s, lambda: self._request(episode))

    def _request(self, episode: _Episode) -> None:
        place = self._route(episode.group.home)
        self._outstanding[place] += 1
        self._outbox[place].append(episode)
        if len(self._outbox[place]) == 1:
            self._clock.after(self._times.window_s, self._send, place)

    def _route(self, home: int) -> int:
        home %= len(self._engines)
        least = min(self._outstanding)
        return self._outstanding.index(least) if self._outstanding[home] - least > _MAX_IMBALANCE else home

    def _send(self, place: int) -> None:
        """When the loop comes to it; what is asked for until then goes with it."""
        self.loop.do(self._times.call_s, lambda: self._sent(place))

    def _sent(self, place: int) -> None:
        call = _Call(self, place, self._outbox[place])
        self._outbox[place] = []
        self._clock.after(self._driver.hop_s, self._engines[place].receive, call)

    def answer(self, place: int, episodes: Sequence[_Episode]) -> None:
        """Responses have come."""
        self._outstanding[place] -= len(episodes)
        self.loop.do(self._times.chunk_s, lambda: self._go_on(episodes))

    def _go_on(self, episodes: Sequence[_Episode]) -> None:
        for episode in episodes:
            episode.place += 1
            if episode.place < len(episode.turns):
                self._turn(episode)
            else:
                self._end(episode)

    def _end(self, episode: _Episode) -> None:
        self.playing -= 1
        self._begin()
        episode.group.left -= 1
        if episode.group.ended:
            self._ended.append(episode.group)
            self._on_end()
