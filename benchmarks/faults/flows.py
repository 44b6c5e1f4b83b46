"""How trials are run: faults at random moments of a run, runs under a condition, signals in a phase.

A run carries many trials: each waits until everything is whole again and two iterations are over, strikes at a random
moment of an iteration, and waits until two more are over. A run that ends over it is resumed, and goes on to the next.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.faults import processes, trials
from benchmarks.faults.cluster import Cluster
from benchmarks.faults.injections import Injected
from benchmarks.faults.kinds import Fault
from benchmarks.faults.training import START_S, Stuck, Training
from benchmarks.faults.trials import Trial

EXAMPLE = str(Path(__file__).with_name("example.py"))
_TRANSFER = "handing the weights to the engines"
_PHASE_NAMES = {"panel": "playing the panel", "transfer": _TRANSFER}
_ITERATIONS = 6  # of a run under a condition
_WARM_UP = 2  # iterations before a fault
_TWICE_S = 0.5  # between two signals
_STARTING_S = (2.0, 12.0)  # after the command was typed: before Ray, and while it starts
Write = Callable[[Trial], None]


def run_trials(
    fault: Fault, numbers: list[int], seed: int, settings: list[str], patience_s: float, write: Write
) -> None:
    """Tries a fault.

    Args:
        fault: of the table.
        numbers: of the trials; with the seed they decide the moments and the victims.
        seed: of this table.
        settings: more words of `proxmo train`.
        patience_s: how long a run that does not go on is watched before it is given up.
        write: takes each trial as soon as it is over.
    """
    words = [EXAMPLE, *fault.words, *settings]
    if fault.how == "disturb":
        left = list(numbers)
        while left:
            _disturb_one_run(fault, left, seed, words, patience_s, write)
        return
    for number in numbers:
        trial = Trial(fault.name, number)
        with Training(words, **fault.place) as training:
            if fault.how == "condition":
                _under_condition(training, trial, patience_s)
            else:
                _signal_in_phase(training, fault, trial, random.Random(f"{seed} {fault.name} {number}"), patience_s)
        write(trial)


def _disturb_one_run(
    fault: Fault, left: list[int], seed: int, words: list[str], patience_s: float, write: Write
) -> None:
    """As many trials as one run carries; takes their numbers from `left`. The last says what the run left behind."""
    with _ready(fault, words) as (training, cluster):
        last: Trial | None = None
        while left:
            trial = Trial(fault.name, left.pop(0))
            rng = random.Random(f"{seed} {fault.name} {trial.number}")
            goes_on = _strike(training, cluster, fault, trial, rng, patience_s)
            if last is not None:
                write(last)
            last = trial
            if not goes_on or fault.once_a_run:
                break
        else:
            assert training.driver is not None, "it has been started"
            training.driver.send_signal(signal.SIGTERM)
            if training.wait_for_end(trials.HANG_S) and cluster is None:
                trial.leftovers += training.leftovers()
        write(trial)


@contextlib.contextmanager
def _ready(fault: Fault, words: list[str]) -> Iterator[tuple[Training, Cluster | None]]:
    """A run that has begun, on two nodes if the fault asks for them."""
    with Training(words, **fault.place) as training:
        cluster = None
        if fault.head_cpus:
            cluster = Cluster(training.temporary, fault.head_cpus)
            cluster.start()
            training.environment |= cluster.environment
            training.words += ["--address", cluster.address]
        training.start("--checkpoint-every", "1")
        yield training, cluster


def _strike(
    training: Training, cluster: Cluster | None, fault: Fault, trial: Trial, rng: random.Random, patience_s: float
) -> bool:
    """One trial in a run that is under way. Whether the run carries another."""
    part = fault.part
    try:
        training.wait_for_iterations(_WARM_UP, START_S)
        whole = training.whole_parts(part)
        training.wait(lambda: len(training.alive(part)) >= whole, trials.HANG_S, f"{whole} parts '{part}' again")
    except Stuck as stuck:
        trial.outcome, trial.detail = trials.HUNG, f"before the injection: {stuck}"
        trial.listen(training, 0)
        return False
    # EngineCore comes back with its actor, and of a node's parts the engines take longest.
    trial.start_s = training.part_start_s("engine" if part == "EngineCore" or fault.head_cpus else part)
    median = training.median_s()
    time.sleep(rng.uniform(0.0, median))
    training.poll()
    before, offset = training.last(), training.terminal_size()
    trial.iteration, trial.phase = before + 1, training.phase()
    began = time.monotonic()
    injected = (fault.inject or _nothing)(training, cluster, rng)
    _follow(training, fault, trial, injected, whole, began, patience_s)
    ended = training.code is not None
    if not ended:
        trial.listen(training, offset)
        _weigh(training, fault, trial, before, median, injected)
        injected.undo()
        trial.judge(training, before)
        return trial.outcome in (trials.RECOVERED, trials.WRONG)
    trial.code, trial.ended_s = training.code, time.monotonic() - began
    trial.listen(training, offset)
    killed = training.driver_pid in {victim.pid for victim in injected.victims}
    in_words = killed or trials.words_of_an_end(trial.code, training.said(offset))
    trial.leftovers = training.leftovers() if cluster is None else []
    injected.undo()
    return _resume(training, trial, before, in_words, keep_cluster=cluster is not None)


def _nothing(training: Training, cluster: Cluster | None, rng: random.Random) -> Injected:
    return Injected()


def _follow(
    training: Training,
    fault: Fault,
    trial: Trial,
    injected: Injected,
    whole: int,
    began: float,
    patience_s: float,
) -> None:
    """Waits until two more iterations are over and the part is whole, or the command ends, or patience does."""
    goal = trial.iteration + 1
    gone = {victim.pid for victim in injected.victims}
    allowed = patience_s + (trial.start_s if math.isfinite(trial.start_s) else 0.0)
    while training.code is None and time.monotonic() - began < allowed:
        training.poll()
        if injected.part is not None and math.isnan(trial.replaced_s):
            fresh = [process for process in training.alive(fault.part) if process.pid not in gone]
            if len(fresh) >= whole:
                trial.replaced_s = time.monotonic() - began
        if training.last() >= goal and (injected.part is None or math.isfinite(trial.replaced_s)):
            return
        time.sleep(0.05)


def _weigh(training: Training, fault: Fault, trial: Trial, before: int, median: float, injected: Injected) -> None:
    """Outcome and time of a trial whose run goes on, or does not."""
    times = [at for iteration, at in sorted(training.over.items()) if iteration >= before]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if training.last() <= trial.iteration:
        trial.outcome = trials.HUNG
        trial.detail = f"no iteration for {time.monotonic() - times[-1]:.0f} s, in the phase {training.phase()!r}"
        return
    trial.seconds = max(0.0, training.over[before + 2] - training.over[before] - 2 * median - injected.held_s)
    start = trial.start_s if fault.start_counts and math.isfinite(trial.start_s) else 0.0
    trial.outcome = trials.HUNG if max(gaps) - median - injected.held_s > trials.HANG_S + start else trials.RECOVERED
    if injected.part is not None and math.isnan(trial.replaced_s):
        trial.outcome, trial.detail = trials.WRONG, "the part was not replaced"


def _resume(training: Training, trial: Trial, before: int, in_words: bool, *, keep_cluster: bool) -> bool:
    """Goes on from the newest checkpoint of a run that ended."""
    if not keep_cluster:
        processes.end_all()
    saved = training.whole_checkpoints()
    trial.outcome = trials.ENDED if in_words else trials.SILENT
    if not saved:
        trial.detail = "there is no checkpoint to go on from"
        return False
    typed = time.monotonic()
    training.start("--checkpoint-every", "1", resume=True)
    try:
        training.wait_for_iterations(2, START_S)
    except Stuck as stuck:
        trial.outcome, trial.detail = trials.HUNG, f"resumed: {stuck}; {training.said()[-2:]}"
        return False
    first = min(training.over)
    trial.lost_iterations = max(0, saved[-1] + 1 - first)
    trial.seconds = trial.ended_s + training.over[first] - typed - training.median_s()
    if trial.ended_s > trials.HANG_S:
        trial.outcome = trials.HUNG
    elif in_words:
        trial.outcome = trials.RESUMED
    trial.judge(training, min(before, first - 1))
    return True


def _under_condition(training: Training, trial: Trial, patience_s: float) -> None:
    """A short run from its beginning to its end."""
    began = time.monotonic()
    training.start("--iterations", str(_ITERATIONS))
    while training.code is None:
        training.poll()
        playing = training.phase().startswith("playing")
        if training.unchanged_s() > (patience_s if playing or training.over else START_S):
            break
        time.sleep(0.05)
    training.poll()
    trial.code = training.code
    trial.listen(training, 0)
    times = sorted(training.over.values())
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    if trial.code is None:
        trial.outcome = trials.HUNG
        trial.detail = f"after {training.last()} iterations, in the phase {training.phase()!r}"
    elif trial.code == 0 and training.last() == _ITERATIONS:
        trial.seconds = gaps[-1] - gaps[len(gaps) // 2]
        trial.outcome = trials.HUNG if trial.seconds > trials.HANG_S else trials.RECOVERED
    else:
        trial.seconds = trial.ended_s = time.monotonic() - (times[-1] if times else began)
        trial.outcome = trials.ENDED if trials.words_of_an_end(trial.code, training.said()) else trials.SILENT
        trial.detail = f"after {training.last()} iterations"
    if trial.code is not None:
        trial.leftovers = training.leftovers()
    trial.judge(training, 0)


def _signal_in_phase(training: Training, fault: Fault, trial: Trial, rng: random.Random, patience_s: float) -> None:
    """SIGTERM when a phase begins, once or twice; measures until everything has ended."""
    training.start("--iterations", "4", "--checkpoint-every", "1")
    driver = training.driver_process
    try:
        _reach(training, fault.phase, rng)
    except Stuck as stuck:
        trial.outcome, trial.detail = trials.HUNG, f"before the signal: {stuck}"
        trial.listen(training, 0)
        return
    trial.phase, trial.iteration = training.phase(), training.last() + 1
    offset = training.terminal_size()
    driver.send_signal(signal.SIGTERM)
    if fault.times == 2:
        time.sleep(_TWICE_S)
        with contextlib.suppress(psutil.NoSuchProcess):
            driver.send_signal(signal.SIGTERM)
    began = time.monotonic()
    ended = training.wait_for_end(patience_s)
    trial.seconds = trial.ended_s = time.monotonic() - began
    trial.code = training.code
    trial.listen(training, offset)
    if not ended:
        trial.outcome = trials.HUNG
        return
    said = training.said(offset)
    # Before the command listens, the signal ends it as it ends any program; also while it ends Ray, with a word.
    by_signal = trial.code == -signal.SIGTERM
    early = fault.phase == "start" and by_signal
    in_words = trials.words_of_an_end(143 if by_signal else trial.code, said)
    trial.outcome = trials.ENDED if early or in_words else trials.SILENT
    if trial.seconds > trials.HANG_S:
        trial.outcome = trials.HUNG
    trial.leftovers = training.leftovers()
    saved = training.whole_checkpoints()
    if fault.times == 1 and training.over:
        trial.lost_iterations = training.last() - (saved[-1] if saved else 0)
    trial.judge(training, 0)


def _reach(training: Training, phase: str, rng: random.Random) -> None:
    """Waits until the run is in a phase; of those of an iteration, in its second."""
    if phase == "start":
        time.sleep(rng.uniform(*_STARTING_S))
        return
    name = _PHASE_NAMES.get(phase, phase)
    in_iteration = phase in ("playing", "learning", "transfer")
    deadline = time.monotonic() + START_S
    while not (training.phase() == name and (not in_iteration or training.last() >= 1)):
        training.poll()
        if training.code is not None or time.monotonic() > deadline:
            raise Stuck(f"the phase {name!r} did not come")
        time.sleep(0.005)
    if phase in ("panel", "playing"):
        time.sleep(rng.uniform(0.0, 0.5))
