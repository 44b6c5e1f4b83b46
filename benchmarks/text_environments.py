"""Time and memory of TextCraft, TextWorld, TextWorldExpress and ScienceWorld, and how far random play gets in them.

    python -m benchmarks.text_environments [--only TextCraft ScienceWorld] [--tasks 20]

The Java engines work in another process, so times are wall seconds; on a shared machine they are upper bounds. An
environment whose package is not installed is left out with a note. Part of `benchmarks.environments`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401  registers

NAMES = ("TextCraft", "TextWorld", "TextWorldExpress", "ScienceWorld")
STEPS = 30  # turns of a random episode


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--tasks", type=int, default=20, help="of the training split, played by each environment")
    arguments = parser.parse_args()
    print_table(arguments.only, arguments.tasks)


def print_table(names: Sequence[str] = NAMES, number: int = 20) -> None:
    """A row for each environment.

    Args:
        names: of `NAMES`.
        number: of tasks to play.
    """
    print(
        f"{'':18}{'tasks':>22}{'first':>9}{'reset':>10}{'step':>10}{'steps':>10}{'memory':>9}{'random':>9}{'expert':>9}"
        f"{'expert':>8}"
    )
    print(
        f"{'':18}{'train/valid/test':>22}{'s':>9}{'ms':>10}{'ms':>10}{'1/s':>10}{'MB':>9}{'success':>9}{'success':>9}"
        f"{'steps':>8}"
    )
    for name in names:
        try:
            row = measure(name, number)
        except ModuleNotFoundError as error:
            print(f"{name:18}left out: {error}")
            continue
        print(
            f"{name:18}{row['sizes']:>22}{row['first']:9.2f}{row['reset']:10.3f}{row['step']:10.3f}"
            f"{1e3 / row['step']:10,.0f}{row['memory']:9.1f}{row['random']:9.0%}{row['expert']:9.0%}"
            f"{row['expert_steps']:8.1f}",
            flush=True,
        )


def measure(name: str, number: int) -> Mapping[str, Any]:
    """One row: seconds to the first reset, milliseconds of later ones and of a step, and so on.

    Args:
        name: of `NAMES`.
        number: of tasks to play.
    """
    before = resident()
    start = time.perf_counter()
    env: Any = gymnasium.make(f"env_wrappers/{name}-v0").unwrapped
    tasks = env.tasks("train")[:number]
    env.reset(options={"task": tasks[0]})
    first = time.perf_counter() - start
    resets, steps, wins, expert_wins, lengths = [], [], [], [], []
    for task in tasks:
        rng = random.Random(task)
        env.reset(options={"task": task})  # a game that is to be made is made once
        start = time.perf_counter()
        _, info = env.reset(options={"task": task})
        resets.append(time.perf_counter() - start)
        for _ in range(STEPS):
            action = rng.choice([action for action in info["admissible_actions"] if "<" not in action])
            start = time.perf_counter()
            _, _, terminated, _, info = env.step(action)
            steps.append(time.perf_counter() - start)
            if terminated:
                break
        wins.append(info["success"])
        env.reset(options={"task": task})
        plan = env.plan()
        for action in plan:
            _, _, terminated, _, info = env.step(action)
            if terminated:
                break
        expert_wins.append(info["success"])
        lengths.append(len(plan))
    java = getattr(env, "_java", None)
    return {
        "sizes": "/".join(str(len(env.tasks(split))) for split in env.splits),
        "first": first,
        "reset": statistics.mean(resets) * 1e3,
        "step": statistics.mean(steps) * 1e3,
        "memory": (resident() - before + (resident(java.process.pid) if java else 0)) / 1e6,
        "random": statistics.mean(wins),
        "expert": statistics.mean(expert_wins),
        "expert_steps": statistics.mean(lengths),
    }


def resident(pid: int | str = "self") -> int:
    """Memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
