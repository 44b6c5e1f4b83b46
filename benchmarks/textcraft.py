"""TextCraft: what the crafters reach within a number of turns, by depth.

    python -m benchmarks.textcraft [--tasks 200] [--turns 16]

On the test split, with the world of `tuned_examples/textcraft_cpu.py`. Success and turns are means; `too long` is the
share of tasks that take more turns than there are, whoever plays; `letters` are those of the longest episode, what the
environment said and what the crafter said.
"""

from __future__ import annotations

import argparse
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium

import env_wrappers  # noqa: F401  registers
from env_wrappers.textcraft.env import TextCraftEnv
from env_wrappers.textcraft.experts import HastyCrafter, ReadingCrafter

CRAFTERS: dict[str, Callable[[random.Random], ReadingCrafter]] = {
    "reading": ReadingCrafter,
    "reading, 15% slips": functools.partial(ReadingCrafter, slips=(0.15,)),
    "hasty": HastyCrafter,
}


@dataclass(frozen=True, slots=True)
class Played:
    """One episode: depth of the item, whether it was made, turns, fewest actions that make it, letters."""

    depth: str
    success: bool
    turns: int
    fewest: int
    letters: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200, help="of the test split")
    parser.add_argument("--turns", type=int, default=16, help="of an episode")
    arguments = parser.parse_args()
    num_tasks = {"test": arguments.tasks}
    env = gymnasium.make("env_wrappers/TextCraft-v0", depths=(1, 2, 3), distractors=4, num_tasks=num_tasks).unwrapped
    assert isinstance(env, TextCraftEnv)
    print(f"{'':20}{'':>10}{'tasks':>8}{'success':>9}{'turns':>7}{'too long':>10}{'letters':>9}")
    for name, make in CRAFTERS.items():
        episodes = [play(env, make(random.Random(task)), task, arguments.turns) for task in env.tasks("test")]
        for depth in ("all", *sorted({episode.depth for episode in episodes})):
            print(f"{name:20}{depth:>10}" + row([e for e in episodes if depth in ("all", e.depth)], arguments.turns))


def row(episodes: list[Played], turns: int) -> str:
    """The figures of some episodes."""
    number = len(episodes)
    success, mean = sum(e.success for e in episodes) / number, sum(e.turns for e in episodes) / number
    too_long = sum(e.fewest > turns for e in episodes) / number
    return f"{number:>8}{success:>9.1%}{mean:>7.1f}{too_long:>10.1%}{max(e.letters for e in episodes):>9,}"


def play(env: TextCraftEnv, crafter: ReadingCrafter, task: str, turns: int) -> Played:
    """Play a task."""
    observation, info = env.reset(options={"task": task})
    fewest = len(env.plan())
    crafter.reset(observation, info)
    letters, turn = len(observation), 0
    while turn < turns and not info["success"]:
        action = crafter.act(observation, info)
        observation, _, _, _, info = env.step(action)
        letters += len(action) + len(observation)
        turn += 1
    return Played(info["task_type"], info["success"], turn, fewest, letters)


if __name__ == "__main__":
    main()
