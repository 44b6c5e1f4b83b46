"""One training of the comparison, in a process of its own.

Its one argument is JSON: stage, world, method, tuning and seed of the cell, and the policy to start from. The last line
that it prints is the record of the training.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evidence.comparison.cells import Cell
from benchmarks.evidence.comparison.methods import Tuning
from benchmarks.evidence.comparison.worlds import WORLDS
from benchmarks.gpu.device import processor
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.evaluation.panels import PanelResult
from proxmo_rllib.types import Status

#: The panel is played at the start, and after each of so many equal parts of the turns, the last of them too.
PARTS = 4


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
        The record. `curve` has turns, success rate and number of episodes of each time the panel was played;
        `training` has turns, successes, episodes, sampled tokens and trained tokens, the first counted from the
        beginning and the others of each iteration; `solved` how often each task was solved at the end, a digit each.
    """
    total = turns or WORLDS[cell.world].turns
    config = config_of(cell, start)
    algorithm = config.build_algo()
    training: list[list[int]] = []
    seconds = dict.fromkeys(("all", "playing", "learning", "advantages"), 0.0)
    try:
        last = algorithm.evaluate_panel()
        curve = [_point(0, last)]
        done = 0
        while done < total:
            began = time.perf_counter()
            result = algorithm.train()
            _add_seconds(seconds, result, time.perf_counter() - began)
            before = done
            training.append(_iteration(result, done))
            done = training[-1][0]
            if done * PARTS // total > before * PARTS // total:
                last = algorithm.evaluate_panel()
                curve.append(_point(done, last))
    finally:
        algorithm.stop()
    return {
        "key": cell.key,
        **asdict(cell),
        "lr": WORLDS[cell.world].lr * cell.tuning.lr_factor,
        "panel": last.panel,
        "curve": curve,
        "area": area(curve),
        "by_task_type": {kind: [rate.successes, rate.episodes] for kind, rate in last.by_task_type.items()},
        "solved": _solved(last, config.panel_repeats),
        "training": training,
        "minutes": {name: round(value / 60, 4) for name, value in seconds.items()},
        "start": _identity(start),
        "machine": processor(),
    }


def _iteration(result: Mapping[str, Any], turns: int) -> list[int]:
    """A row of `training`, from RLlib's result and the turns before it."""
    played = result["env_runners"]
    names = ("num_successes", "num_episodes", "num_response_tokens", "num_tokens")
    return [turns + int(played["num_env_steps_sampled"]), *(int(played[name]) for name in names)]


def _add_seconds(seconds: dict[str, float], result: Mapping[str, Any], whole: float) -> None:
    connectors = result["learners"]["__all_modules__"]["learner_connector"]["timers"]["connectors"]
    seconds["all"] += whole
    seconds["playing"] += float(result["timers"]["env_runner_sampling_timer"])
    seconds["learning"] += float(result["timers"]["learner_update_timer"])
    seconds["advantages"] += float(connectors["prox_mo_advantages"])


def area(curve: list[list[float]]) -> float:
    """Mean success rate on the panel over the turns of a training, by trapezes between its evaluations."""
    total = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    return float(total / (curve[-1][0] - curve[0][0]))


def _point(turns: int, played: PanelResult) -> list[float]:
    """Turns, success rate, episodes. A panel that was not played whole has no rate that may be compared."""
    if played.shortfall is not None:
        raise RuntimeError(f"After {turns:,} turns: {played.shortfall}. This training says nothing; run it again.")
    return [turns, played.overall.rate, played.overall.episodes]


def _solved(played: PanelResult, repeats: int) -> str:
    """How often each task of the panel was solved, a digit each, in its order."""
    won = [episode.status is Status.SUCCESS for episode in played.episodes]
    return "".join(str(sum(won[place : place + repeats])) for place in range(0, len(won), repeats))


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
