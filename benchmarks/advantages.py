"""What credit assignment costs: `python -m benchmarks.advantages`, and `--million` for the large batch.

One core. The anchors are synthetic, 30 words each; "distinct" is the worst case, where no two turns of a batch saw the
same text; "repeated" has every anchor four times, as agents that walk in circles produce.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # one core: set before numpy is imported, which reads it once
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import argparse
import platform
import resource
import time

import numpy as np

from proxmo_rllib.advantages import TurnTable, estimate_advantages

# An iteration of the published ALFWorld set-up (16 groups x 8, 1.5B) on two H100, as users report it: 12 h / 150.
ITERATION_SECONDS = 290.0
# An iteration of the quickstart, of 16 groups x 8 with some 900 turns, on two CPU cores (docs/results.md).
QUICKSTART_SECONDS = 2.5
ESTIMATORS = ("grpo", "rloo", "gigpo", "proxmo_without_modulation", "proxmo", "proxmo_official")
COLUMNS = ("groups", "turns", "anchors", "estimator", "CPU s", "us a turn", "x GRPO", "% of an iteration")


def synthetic_table(
    groups: int, episodes: int, turns: int, *, words: int = 30, repeats: int = 1, seed: int = 0
) -> TurnTable:
    """A batch of random rollouts.

    Args:
        groups: number of groups.
        episodes: episodes a group.
        turns: in all; the lengths of the episodes vary around the mean.
        words: an anchor.
        repeats: how often each anchor occurs in its group.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"{noun}{number}" for noun in "abcdefghijklmnopqrst" for number in range(20)])
    lengths = 1 + rng.multinomial(turns - groups * episodes, np.full(groups * episodes, 1 / (groups * episodes)))
    group = np.repeat(np.arange(groups * episodes) // episodes, lengths)
    episode = np.repeat(np.arange(groups * episodes), lengths)
    success = rng.random(groups * episodes) < 0.5
    reward = np.zeros(turns)
    reward[np.cumsum(lengths) - 1] = success
    anchor: list[str] = []
    for size in np.bincount(group):
        # A task has its own hundred words or so: the objects and places of its room.
        room = rng.choice(vocabulary, size=120, replace=False)
        texts = [" ".join(row) for row in room[rng.integers(len(room), size=(-(-size // repeats), words))]]
        anchor += [texts[place] for place in rng.permutation(size) % len(texts)]
    return TurnTable(group=group, episode=episode, reward=reward, success=success[episode], anchor=anchor)


def cpu_seconds(table: TurnTable, name: str, repetitions: int) -> float:
    """The least processor time of several runs: what the code needs when nobody disturbs it."""
    best = np.inf
    for _ in range(repetitions):
        start = time.process_time()
        estimate_advantages(table, name)
        best = min(best, time.process_time() - start)
    return best


def quickstart_seconds(repetitions: int) -> float:
    """What all of it costs in a batch like the quickstart's: the table, ProxMO's advantages, and what is logged."""
    table = synthetic_table(16, 8, 900, words=15, repeats=4)
    best = np.inf
    for _ in range(repetitions):
        start = time.process_time()
        again = TurnTable(table.group, table.episode, table.reward, table.success, table.anchor)
        estimate_advantages(again, "proxmo").measure()
        best = min(best, time.process_time() - start)
    return best


def rows_of(table: TurnTable, anchors: str, names: tuple[str, ...], repetitions: int) -> list[tuple[str, ...]]:
    """One row an estimator; GRPO is measured along, to be compared with."""
    seconds = {name: cpu_seconds(table, name, repetitions) for name in {"grpo": None} | dict.fromkeys(names)}
    return [
        (
            f"{table.num_groups:,}",
            f"{len(table):,}",
            anchors,
            name,
            f"{seconds[name]:.4f}",
            f"{seconds[name] / len(table) * 1e6:.2f}",
            f"{seconds[name] / seconds['grpo']:.0f}",
            f"{seconds[name] / ITERATION_SECONDS * 100:.3f}",
        )
        for name in names
    ]


def print_table(rows: list[tuple[str, ...]]) -> None:
    """As Markdown, to be pasted into docs/advantages.md."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, tuple("-" * width for width in widths), *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true", help="only the batch of 1,000,000 turns in 2,000 groups")
    parser.add_argument("--repetitions", type=int, default=5, help="the best of so many runs counts")
    arguments = parser.parse_args()
    if arguments.million:
        table = synthetic_table(2000, 16, 1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = rows_of(table, "distinct", ("grpo", "proxmo"), 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print_table(rows)
        print(f"\npeak memory {peak / 2**20:.2f} GiB, of which the batch itself and Python {before / 2**20:.2f} GiB")
    else:
        reference = synthetic_table(32, 16, 19_283)
        rows = rows_of(reference, "distinct", ESTIMATORS, arguments.repetitions)
        repeated = synthetic_table(32, 16, 19_283, repeats=4)
        rows += rows_of(repeated, "repeated", ("proxmo",), arguments.repetitions)
        for groups in (8, 16, 64, 128):
            table = synthetic_table(groups, 16, groups * 19_283 // 32)
            rows += rows_of(table, "distinct", ("proxmo",), arguments.repetitions)
        print_table(rows)
        seconds = quickstart_seconds(10 * arguments.repetitions)
        print(
            f"\n16 groups x 8 of 900 turns, anchors of 15 words four times each, with table and diagnostics: "
            f"{seconds * 1e3:.1f} ms, {seconds / QUICKSTART_SECONDS:.2%} of the quickstart's {QUICKSTART_SECONDS} s"
        )
    print(f"\n{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, one core")


if __name__ == "__main__":
    main()
