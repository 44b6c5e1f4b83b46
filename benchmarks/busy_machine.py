"""How much slower the quickstart's iterations are beside busy processes, as ratios within one run.

    python -m benchmarks.busy_machine [--rounds 5] [--busy 0 1 2]

One algorithm is built as a script builds it. Its learning rate is zero, so that all iterations have the same work. Then
rounds of one iteration beside each number of processes that do nothing but count, and medians over the rounds. A fair
share of two cores is 1.5 times slower beside one such process for what has two threads, and 2 times beside two. The
bounds are 2 and 3; the exit status is 1 if an iteration as a whole is slower. `others` is what processes that are not
this run's took of the machine, in cores: with more than a tenth of one the ratios say little.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from proxmo_rllib.machine.processors import available_cores
from proxmo_rllib.training_run.progress import Progress

BOUNDS = {1: 2.0, 2: 3.0}  # times slower, by busy processes
WARM_UP = 2  # iterations
Measurement = dict[str, float]
PHASES = ("rollouts", "learner", "transfer", "iteration")


def main() -> int:
    """Print one line for each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="iterations beside each number of busy processes")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="how many, the quiet machine first")
    arguments = parser.parse_args()
    started = time.perf_counter()
    algorithm = quickstart().build_algo()
    print(f"{available_cores()} cores; {time.perf_counter() - started:.0f} s to start", flush=True)
    seen: dict[int, list[Measurement]] = {busy: [] for busy in arguments.busy}
    try:
        for _ in range(WARM_UP):
            algorithm.train()
        for _ in range(arguments.rounds):
            for busy in arguments.busy:
                with busy_processes(busy) as burners:
                    seen[busy].append(measure(algorithm, burners))
    finally:
        algorithm.stop()
    medians = {busy: {key: statistics.median(m[key] for m in rows) for key in rows[0]} for busy, rows in seen.items()}
    return report(medians)


def quickstart() -> Any:
    """The quickstart's config, with the same work in each iteration."""
    from tuned_examples.quickstart import config

    return config.training(lr=0.0, entropy_coef=0.0).evaluation(evaluation_interval=None)


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that count."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield burners
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def measure(algorithm: Any, burners: list[subprocess.Popen[bytes]]) -> Measurement:
    """One iteration: seconds by phase, and the cores that others took."""
    before, start = cpu_seconds(burners), time.perf_counter()
    result = algorithm.train()
    seconds = time.perf_counter() - start
    machine, ours = (after - then for after, then in zip(cpu_seconds(burners), before, strict=True))
    progress = Progress.from_result(result, 0.0)
    return {
        "rollouts": progress.sampling_s,
        "learner": progress.learning_s,
        "transfer": progress.transfer_s,
        "iteration": seconds,
        "learner tokens/s": progress.learner_tokens_per_s,
        "others": max(0.0, machine - ours) / seconds,
    }


def cpu_seconds(burners: list[subprocess.Popen[bytes]]) -> tuple[float, float]:
    """Processor time so far: of the machine, and of this run with its busy processes."""
    import psutil

    times = psutil.cpu_times()
    machine = times.user + times.nice + times.system
    ours = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            ours += used.user + used.system
    return machine, ours


def report(medians: dict[int, Measurement]) -> int:
    """Seconds and ratios to the quiet machine. 1 if a bound is exceeded."""
    quiet = medians[min(medians)]
    print(f"{'busy':>4}" + "".join(f"{phase:>22}" for phase in PHASES) + f"{'learner tokens/s':>18}{'others':>8}")
    exceeded = 0
    for busy, row in medians.items():
        cells = "".join(f"{row[phase]:12.2f} s {row[phase] / quiet[phase]:5.2f} x" for phase in PHASES)
        print(f"{busy:4d}{cells}{row['learner tokens/s']:18.0f}{row['others']:8.2f}")
        if row["iteration"] / quiet["iteration"] > BOUNDS.get(busy, float("inf")):
            print(f"beside {busy} an iteration is more than {BOUNDS[busy]:g} times slower", file=sys.stderr)
            exceeded = 1
    return exceeded


if __name__ == "__main__":
    sys.exit(main())
