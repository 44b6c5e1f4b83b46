"""A run that nobody plays, as its observers see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.training_run import RunFolder
from proxmo_rllib.training_run.progress import PanelScore, Progress
from tests.viewer.conftest import lines_of, play

OUTCOMES = ("success", "failure", "truncated", "success")


def recorded(iteration: int, groups: int = 2) -> list[dict[str, Any]]:
    """Episodes of whole groups, as the record has them."""
    rng = np.random.default_rng(iteration)
    played = [play(f"{iteration}-{number}", f"train/{number}", OUTCOMES, rng) for number in range(groups)]
    return [json.loads(line) for group in played for line in lines_of(group, iteration)]


def result_of(iteration: int, panel: float | None = None) -> dict[str, Any]:
    """A result as `ProxMO.train` returns it."""
    result: dict[str, Any] = {
        "training_iteration": iteration,
        "env_runners": {
            "success_rate": 0.5,
            "num_episodes": 8,
            "num_successes": 4,
            "histograms": {"episode_len": [1.0, 2.0, 2.0, 5.0]},
        },
        "learners": {"default_policy": {"total_loss": 0.1 * iteration, "histograms": {"ratio": [0.9, 1.0, 1.2]}}},
    }
    if panel is not None:
        result["evaluation"] = evaluation(panel)
    return result


def evaluation(rate: float) -> dict[str, Any]:
    """What a panel of ten tasks comes to."""
    kinds = {kind: {"success_rate": rate, "success_low": 0.0, "success_high": 1.0} for kind in ("heat", "pick")}
    return {"success_rate": rate, "num_episodes": 10, "seconds": 0.5, "by_task_type": kinds}


def begin(folder: RunFolder, observer: Any, rate: float = 0.1) -> None:
    """The panel before training, as the loop plays it."""
    folder.add_metrics({"iteration": 0, "minutes": 0.5} | flatten({"evaluation": evaluation(rate)}))
    observer.on_panel(PanelScore(round(10 * rate), 10, 0.5), 0)


def iterate(observer: Any, result: Mapping[str, Any], folder: RunFolder | None = None) -> None:
    """An iteration, as the loop hands it on; with a checkpoint, if there is a folder."""
    progress = Progress.from_result(result, minutes=1.0)
    observer.on_iteration(progress, progress.as_metrics() | flatten(result), recorded(progress.iteration))
    if folder is not None:
        place = folder.saved.place(progress.iteration)
        (place / "policy").mkdir(parents=True)
        (place / "policy" / "model.safetensors").write_text(f"weights of {progress.iteration}")
        observer.on_checkpoint(place)


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], RunFolder]:
    """The run's folder, as each process opens it."""

    def open_it() -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        if not folder.has_run():
            folder.write_json("run.json", {"file": "x.py"})
        return folder

    return open_it
