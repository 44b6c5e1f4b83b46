"""One training of the comparison, in a process of its own: `python -m benchmarks.evidence.comparison.train CELL`.

CELL is JSON: stage, world, method, tuning, seed. The last line that it prints is the record of the training.
"""

from __future__ import annotations

import itertools
import json
import logging
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evidence.comparison.cells import Cell
from benchmarks.evidence.comparison.methods import Tuning
from benchmarks.evidence.comparison.worlds import WORLDS
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.evaluation.panels import PanelResult

#: The panel is played at the start, and after each of so many equal parts of the turns.
PARTS = 4
#: Times that it is played at the end, each time sampled anew.
REPEATS_AT_THE_END = 2


def config_of(cell: Cell, start: str | Path) -> ProxMOConfig:
    """The config of a training, from the world's by nothing but method, tuning, start and seed."""
    world = WORLDS[cell.world]
    lr = world.lr * cell.tuning.lr_factor
    config = cell.what.apply(world.config()).policy(pretrained=str(start))
    # Constant over half of the turns, and then down to a tenth, so that the end is no matter of luck.
    config.training(lr=[[0, lr], [world.turns // 2, lr], [world.turns, lr / 10]], entropy_coef=cell.tuning.entropy_coef)
    return config.debugging(seed=cell.seed)


def train(cell: Cell, start: str | Path, turns: int | None = None) -> dict[str, Any]:
    """Trains until the world's turns are over.

    Args:
        cell: what to train.
        start: the policy that training starts from.
        turns: instead of the world's.

    Returns:
        The record: `curve` has turns, success rate and number of episodes of the panel, `training` turns, successes
        and episodes of each iteration.
    """
    world = WORLDS[cell.world]
    total = turns or world.turns
    config = config_of(cell, start)
    algorithm = config.build_algo()
    try:
        curve = [_point(0, algorithm.evaluate_panel())]
        training: list[list[float]] = []
        seconds: dict[str, float] = {"playing": 0.0, "learning": 0.0, "all": 0.0}
        done = 0
        while done < total:
            began = time.perf_counter()
            result = algorithm.train()
            seconds["all"] += time.perf_counter() - began
            seconds["playing"] += float(result["timers"]["env_runner_sampling_timer"])
            seconds["learning"] += float(result["timers"]["learner_update_timer"])
            played = result["env_runners"]
            before, done = done, done + int(played["num_env_steps_sampled"])
            training.append([done, int(played["num_successes"]), int(played["num_episodes"])])
            if done * PARTS // total > before * PARTS // total and done < total:
                curve.append(_point(done, algorithm.evaluate_panel()))
        last = [algorithm.evaluate_panel() for _ in range(REPEATS_AT_THE_END)]
        curve.append(_point(done, *last))
    finally:
        algorithm.stop()
    return {
        "key": cell.key,
        **asdict(cell),
        "lr": world.lr * cell.tuning.lr_factor,
        "panel": last[0].panel,
        "curve": curve,
        "area": area(curve),
        "by_task_type": {
            kind: [
                sum(one.by_task_type[kind].successes for one in last),
                sum(one.by_task_type[kind].episodes for one in last),
            ]
            for kind in last[0].by_task_type
        },
        "solved": _solved(last),
        "training": training,
        "iterations": len(training),
        "minutes": {name: round(value / 60, 3) for name, value in seconds.items()},
        "start": _identity(start),
        "machine": platform.processor() or platform.machine(),
    }


def area(curve: list[list[float]]) -> float:
    """Mean success rate on the panel over the turns of a training, by trapezes between its evaluations."""
    total = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    return float(total / (curve[-1][0] - curve[0][0]))


def _point(turns: int, *played: PanelResult) -> list[float]:
    """Turns, success rate, episodes. A panel that was not played whole has no rate that may be compared."""
    for one in played:
        if one.shortfall is not None:
            raise RuntimeError(f"After {turns:,} turns: {one.shortfall}. This training says nothing; run it again.")
    successes, episodes = sum(one.overall.successes for one in played), sum(one.overall.episodes for one in played)
    return [turns, successes / episodes, episodes]


def _solved(played: list[PanelResult]) -> str:
    """How often each task of the panel was solved at the end, a digit each, in its order."""
    counts = [
        sum(int(one.episodes[place].status == "success") for one in played) for place in range(len(played[0].episodes))
    ]
    return "".join(map(str, counts))


def _identity(start: str | Path) -> str:
    """Which policy it started from, wherever that lies."""
    return str(start) if str(start).startswith("asset:") else Path(start).name


def main() -> None:
    """Train, and print the record."""
    given = json.loads(sys.argv[1])
    start = given.pop("start")
    turns = given.pop("turns", None)
    cell = Cell(**given | {"tuning": Tuning(**given["tuning"])})
    logging.getLogger("ray").setLevel(logging.ERROR)
    print(json.dumps(train(cell, start, turns)), flush=True)


if __name__ == "__main__":
    main()
