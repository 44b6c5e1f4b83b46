"""WebShop: time and memory on products, generated or official, and what shoppers score.

    python -m benchmarks.webshop [--catalogue PATH] [--products 1000] [--tasks 500]

Times are CPU seconds of one core, so that other work on the machine does not change them much. Private memory is that
of a further process: the interpreter, its libraries, and what it does not share. `python -m benchmarks.environments`
prints this too, with the defaults.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium

import env_wrappers  # noqa: F401  registers
from env_wrappers.webshop import generator, official
from env_wrappers.webshop.catalogue import LARGE_PRODUCTS, build
from env_wrappers.webshop.env import WebShopEnv
from env_wrappers.webshop.experts import TURNS, Oracle, ReadingShopper

ENV_ID = "env_wrappers/WebShop-v0"
# What the published environment needs, a worker with the small catalogue: measured by the recorder of the tests' data.
PUBLISHED = {"step": "16,000-61,000", "steps a second": "16-62", "private memory of a process": "284,000-352,000"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", help="folder of the official files; generated products by default")
    parser.add_argument("--products", type=int, default=1000, help="number of generated products")
    parser.add_argument("--tasks", type=int, default=500, help="tasks of the test split that shoppers play")
    arguments = parser.parse_args()
    print_tables(arguments.catalogue, arguments.products, arguments.tasks)


def print_tables(catalogue: str | None = None, products: int = 1000, tasks: int = 500) -> None:
    """Print time and memory, then what shoppers score.

    Args:
        catalogue: folder of the official files; None for generated products.
        products: how many are generated.
        tasks: of the test split, that shoppers play.
    """
    env = gymnasium.make(ENV_ID, catalogue=catalogue, num_products=products).unwrapped
    assert isinstance(env, WebShopEnv)
    print(f"WebShop, {env.catalogue.name}")
    print(f"{'':38}{'here':>14}{'published':>18}   target")
    for name, unit, value, target in rows(env):
        print(f"{name + ', ' + unit:38}{value:>14,.1f}{PUBLISHED.get(name, ''):>18}   {target}")
    print(f"\n{'shopper, test split':38}{'tasks':>8}{'score':>8}{'success':>9}{'turns':>7}")
    for fixed in (False, True):
        env = WebShopEnv(catalogue=catalogue, num_products=products, normalise_goal_colors=fixed)
        for name, shopper in (("knows the goal", Oracle(env)), ("reads", ReadingShopper(random.Random(0)))):
            played, score, success, turns = play(env, shopper, env.tasks("test")[:tasks])
            label = name + (", colours mended" if fixed else "")
            print(f"{label:38}{played:>8}{score:>8.3f}{success:>9.3f}{turns:>7.1f}")


def rows(env: WebShopEnv) -> list[tuple[str, str, float, str]]:
    """(name, unit, value, target)."""
    catalogue, number, seed = env._catalogue_arguments
    walks = {task: walk(env, task) for task in env.tasks("test")[:100]}
    steps = sum(map(len, walks.values()))

    def reset() -> int:
        for task in walks:
            env.reset(options={"task": task})
        return len(walks)

    def step() -> int:
        for task, actions in walks.items():
            env.reset(options={"task": task})
            for action in actions:
                env.step(action)
        return steps

    def clone() -> int:
        for _ in range(1000):
            env.clone()
        return 1000

    queries = [env.catalogue.goal("synthetic", index).instruction for index in range(100)]

    def search() -> int:
        for query in queries:
            env.catalogue.index.search(query, 50)
        return len(queries)

    found: list[tuple[str, str, float, str]] = []
    if catalogue is not None or number <= LARGE_PRODUCTS:
        if catalogue is None:
            products = [generator.make_product(seed, row) for row in range(number)]
        else:
            products = list(official.read_products(official.find_files(env_folder(catalogue))))
        found.append(("index and goals", "ms", cpu_seconds(lambda: bool(build("", products)), 1) * 1e3, "1,000"))
    seconds = cpu_seconds(step) - cpu_seconds(reset) * len(walks) / steps
    found += [
        ("reset", "us", cpu_seconds(reset) * 1e6, ""),
        ("step", "us", seconds * 1e6, "200"),
        ("steps a second", "1/s", 1 / seconds, "5,000"),
        ("search that was not made before", "us", cpu_seconds(search) * 1e6, ""),
        ("clone", "us", cpu_seconds(clone) * 1e6, ""),
        ("private memory of a process", "kB", private_kilobytes(catalogue, number), "50,000"),
    ]
    return found


def env_folder(catalogue: str | os.PathLike[str]) -> Path:
    """The folder that an environment's argument names."""
    return Path(os.path.expanduser(os.path.expandvars(catalogue)))


def walk(env: WebShopEnv, task: str) -> list[str]:
    """Actions of a customer who looks around."""
    shopper = ReadingShopper(random.Random(0))
    observation, info = env.reset(options={"task": task})
    shopper.reset(observation, info)
    actions: list[str] = []
    terminated = False
    while not terminated:
        actions.append(shopper.act(observation, info))
        observation, _, terminated, _, info = env.step(actions[-1])
    return actions


def play(env: WebShopEnv, shopper: Oracle | ReadingShopper, tasks: list[str]) -> tuple[int, float, float, float]:
    """Number of tasks, and means of score, success and turns."""
    score = success = turns = 0.0
    for task in tasks:
        observation, info = env.reset(options={"task": task})
        shopper.reset(observation, info)
        for _ in range(TURNS):
            observation, _, terminated, _, info = env.step(shopper.act(observation, info))
            turns += 1
            if terminated:
                break
        score += info["score"]
        success += info["success"]
    return len(tasks), score / len(tasks), success / len(tasks), turns / len(tasks)


def cpu_seconds(work: Callable[[], int], repeats: int = 5) -> float:
    """Best CPU time of one of the things of which `work` does as many as it returns."""
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        number = work()
        best = min(best, (time.thread_time() - start) / number)
    return best


def private_kilobytes(catalogue: str | os.PathLike[str] | None, products: int) -> float:
    """Memory of a new process that plays a hundred episodes, without files that it shares with others."""
    script = (
        "import random, sys, gymnasium, env_wrappers\n"
        "from env_wrappers.webshop.experts import ReadingShopper\n"
        f"env = gymnasium.make({ENV_ID!r}, catalogue=sys.argv[1] or None, num_products=int(sys.argv[2]))\n"
        "shopper = ReadingShopper(random.Random(0))\n"
        "for seed in range(100):\n"
        "    observation, info = env.reset(seed=seed)\n"
        "    shopper.reset(observation, info)\n"
        "    terminated = False\n"
        "    while not terminated:\n"
        "        observation, _, terminated, _, info = env.step(shopper.act(observation, info))\n"
        "print(open('/proc/self/status').read())\n"
    )
    command = [sys.executable, "-c", script, os.fspath(catalogue or ""), str(products)]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match is not None
    return float(match[1])


if __name__ == "__main__":
    main()
