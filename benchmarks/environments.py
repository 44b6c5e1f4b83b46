"""Native against official ALFWorld engine: time and memory. Generated against real games: size and difficulty.
WebShop: time, memory and scores. TextCraft, TextWorld, TextWorldExpress, ScienceWorld: the same, as far as installed.

    python -m benchmarks.environments [--games PATH] [--official-games 2] [--catalogue PATH] [--text-tasks 8]

Times are CPU seconds of one core, so that other work on the machine does not change them much; those of the last four
are wall seconds. PATH is as the environment's `games`; without it the games are generated, and nothing is compared with
real ones.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import gymnasium

import env_wrappers  # noqa: F401  registers
from env_wrappers.alfworld import rooms
from env_wrappers.alfworld.engine import State
from env_wrappers.alfworld.env import ALFWorldEnv
from env_wrappers.alfworld.generator import GeneratorConfig, generate
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.problem import Game, parse_game

from . import text_environments, webshop

ENV_ID = "env_wrappers/ALFWorld-v0"
STEPS = 50


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", help="official games; generated ones by default")
    parser.add_argument("--native-games", type=int, default=40, help="games that the native engine plays")
    parser.add_argument(
        "--official-games", type=int, default=2, help="games that the official engine plays; 0 for none"
    )
    parser.add_argument("--catalogue", help="WebShop's official files; generated products by default")
    parser.add_argument("--text-tasks", type=int, default=8, help="tasks of each of the four others; 0 for none")
    arguments = parser.parse_args()
    env = gymnasium.make(ENV_ID, games=arguments.games).unwrapped
    assert isinstance(env, ALFWorldEnv)
    tasks = env.tasks("train")[: arguments.native_games]

    rows = native_rows(env, tasks)
    if arguments.official_games:
        walks = {task: walk(env, task, 15) for task in tasks[: arguments.official_games]}
        official = official_rows(arguments.games, walks)
        print(f"{'':34}{'native':>14}{'official':>14}{'ratio':>10}   target")
        for name, unit, value, target in rows:
            other = official.get(name)
            against = f"{other:>14,.1f}{max(other / value, value / other):>10,.0f}" if other else f"{'-':>14}{'-':>10}"
            print(f"{name + ', ' + unit:34}{value:>14,.1f}{against}   {target}")
    else:
        for name, unit, value, target in rows:
            print(f"{name + ', ' + unit:34}{value:>14,.1f}   {target}")
    print()
    compare_games(env if arguments.games else None)
    print()
    webshop.print_tables(arguments.catalogue)
    if arguments.text_tasks:
        print()
        text_environments.print_table(number=arguments.text_tasks)


def cpu_seconds(work: Callable[[], int], repeats: int = 5) -> float:
    """Best CPU time of one of the things of which `work` does as many as it returns."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        start = time.thread_time()
        number = work()
        best = min(best, (time.thread_time() - start) / number)
    return best


def native_rows(env: ALFWorldEnv, tasks: list[str]) -> list[tuple[str, str, float, str]]:
    """(name, unit, value, target) of the native engine."""
    sources = [env.library.source(task) for task in tasks]
    games = [parse_game(source.problem, source.task) for source in sources]

    def parse() -> int:
        for source in sources:
            parse_game(source.problem, source.task)
        return len(sources)

    def reset() -> int:
        for task in tasks:
            env.reset(options={"task": task})
        return len(tasks)

    walks = [walk(env, task, STEPS) for task in tasks]

    def step() -> int:
        for task, actions in zip(tasks, walks, strict=True):
            env.reset(options={"task": task})
            for action in actions:
                env.step(action)
        return STEPS * len(tasks)

    def clone() -> int:
        for _ in range(1000):
            env.clone()
        return 1000

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [parse_game(source.problem, source.task) for source in sources]
    between = tracemalloc.get_traced_memory()[0]
    states = [State(game) for game in kept]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    seconds = cpu_seconds(step) - cpu_seconds(reset) / STEPS
    return [
        ("parse a game", "ms", cpu_seconds(parse) * 1e3, "2"),
        ("reset", "us", (cpu_seconds(reset)) * 1e6, "20"),
        ("step, with admissible actions", "us", seconds * 1e6, "30"),
        ("steps a second", "1/s", 1 / seconds, ""),
        ("clone", "us", cpu_seconds(clone) * 1e6, ""),
        ("memory a game", "KB", (between - before) / len(games) / 1e3, "100"),
        ("memory an environment", "KB", (after - between) / len(states) / 1e3, "20"),
    ]


def walk(env: ALFWorldEnv, task: str, steps: int) -> list[str]:
    """Actions of an agent that does what can be done at a place before it walks on."""
    rng = random.Random(0)
    _, info = env.reset(options={"task": task})
    actions = []
    for _ in range(steps):
        possible = info["admissible_actions"]
        here = [action for action in possible if not action.startswith("go to")]
        actions.append(rng.choice(here if rng.random() < 0.5 else possible))
        info = env.step(actions[-1])[4]
    return actions


def official_rows(games: str | None, walks: dict[str, list[str]]) -> dict[str, float]:
    """Values of the official engine, in the same units.

    Args:
        games: as the environment's argument.
        walks: actions to do in each task.
    """
    warm = gymnasium.make(ENV_ID, games=games, engine="textworld").unwrapped  # imports
    warm.reset(options={"task": next(iter(walks))})
    before = resident_bytes()
    played, resets, steps = [], [], []
    for task, actions in walks.items():
        env = gymnasium.make(ENV_ID, games=games, engine="textworld").unwrapped
        played.append(env)  # all stay alive, as those of a training would
        start = time.thread_time()
        env.reset(options={"task": task})
        resets.append(time.thread_time() - start)
        start = time.thread_time()
        for action in actions:
            env.step(action)
        steps.append((time.thread_time() - start) / len(actions))
    return {
        "reset": statistics.mean(resets) * 1e6,
        "step, with admissible actions": statistics.mean(steps) * 1e6,
        "steps a second": 1 / statistics.mean(steps),
        "memory an environment": (resident_bytes() - before) / len(played) / 1e3,
    }


def resident_bytes() -> int:
    """Memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def compare_games(real: ALFWorldEnv | None) -> None:
    """By kind of room: receptacles, portable objects, and steps of the player that knows everything."""
    config = GeneratorConfig()
    start = time.thread_time()
    made = [generate(config, "train", index) for index in range(3600)]
    milliseconds = (time.thread_time() - start) / len(made) * 1e3
    columns = {"generated": summarise([measured(rooms.room_kind(g.room), g.game, len(g.solution)) for g in made])}
    if real is not None:
        games = [measured(*game) for game in real_games(real, real.tasks("train"))]
        columns["real, task types balanced"] = summarise(games)
        columns["real, as they come"] = summarise(games, balanced=False)
    print(f"{milliseconds:.1f} ms to generate and solve a game. Receptacles / portable objects / expert steps:")
    print(f"{'':14}" + "".join(f"{name:>36}" for name in columns))
    for kind in rooms.ROOM_KINDS:
        print(f"{kind:14}" + "".join(f"{column[kind]:>36}" for column in columns.values()))


def real_games(env: ALFWorldEnv, tasks: list[str]) -> Iterable[tuple[str, Game, int]]:
    """(kind of room, game, steps) of official games."""
    for task in tasks:
        game = env.library.load(task)
        kind = rooms.room_kind(int(task.split("/")[1].rsplit("-", 1)[1]))
        yield kind, game, len(solution(game) or ())


def measured(kind: str, game: Game, steps: int) -> tuple[str, str, tuple[int, int, int]]:
    """(kind of room, task type, what is compared) of a game."""
    return kind, game.goal.task_type, (len(game.locations), len(game.pickupable), steps)


def summarise(games: list[tuple[str, str, tuple[int, int, int]]], *, balanced: bool = True) -> dict[str, str]:
    """ "receptacles / objects / steps" by kind of room, each a mean ± a standard deviation.

    Args:
        games: of `measured`.
        balanced: weigh the games so that each task type counts as much as another, as generated ones come.
    """
    frequency = Counter(task_type for _, task_type, _ in games)
    rows, weights = defaultdict(list), defaultdict(list)
    for kind, task_type, values in games:
        rows[kind].append(values)
        weights[kind].append(1 / frequency[task_type] if balanced else 1.0)
    return {
        kind: " / ".join(mean_and_deviation(column, weights[kind]) for column in zip(*values, strict=True))
        for kind, values in rows.items()
    }


def mean_and_deviation(values: Sequence[float], weights: Sequence[float]) -> str:
    """ "mean ± standard deviation" of values that count for more or less."""
    mean = statistics.fmean(values, weights)
    variance = statistics.fmean([(value - mean) ** 2 for value in values], weights)
    return f"{mean:.1f} ± {variance**0.5:.1f}"


if __name__ == "__main__":
    main()
