"""What came of a sweep: the table with intervals, the best trial, the files, the picture."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from proxmo_rllib.cli.tune import as_table
from proxmo_rllib.evaluation import wilson_interval
from proxmo_rllib.tuning.picture import draw
from proxmo_rllib.tuning.results import best_of, read_results, undecided, write_results

VARIED = ["lr", "objective", "env_config/max_objects"]


class Frame:
    """What is used of pandas' frames, which Tune has of a trial's results."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __contains__(self, column: str) -> bool:
        return any(column in row for row in self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        return [row.get(column, math.nan) for row in self.rows]

    def iterrows(self) -> Any:
        columns = {column for row in self.rows for column in row}
        return enumerate({column: row.get(column, math.nan) for column in columns} for row in self.rows)


def panel(successes: int, episodes: int = 64, seconds: float = 1.0) -> dict[str, Any]:
    low, high = wilson_interval(successes, episodes)
    return {
        "success_rate": successes / episodes,
        "success_low": low,
        "success_high": high,
        "num_episodes": episodes,
        "num_independent_episodes": episodes,
        "seconds": seconds,
    }


def trial(number: int, lr: float, panels: list[int | None], objective: str = "ppo", error: str | None = None) -> Any:
    """As ResultGrid has it: each result has the newest panel, NaN before the first."""
    rows, newest = [], None
    for iteration, successes in enumerate(panels, start=1):
        if successes is not None:
            newest = panel(successes, seconds=iteration)
        evaluation = newest or {"success_rate": math.nan}
        row = {"training_iteration": iteration, "env_runners/success_rate": 0.1 * iteration}
        rows.append(row | {f"evaluation/{key}": value for key, value in evaluation.items()})
    config = {"lr": lr, "objective": objective, "env_config": {"max_objects": number}}
    metrics: dict[str, Any] = {}
    if panels:
        metrics = {
            "trial_id": f"ab_{number:05d}",
            "training_iteration": len(panels),
            "time_total_s": 90.0,
            "env_runners": {"success_rate": 0.1 * len(panels), "episode_return_mean": 0.25},
            "evaluation": newest or {"success_rate": math.nan},
        }
    return SimpleNamespace(
        metrics=metrics,
        config=config,
        path=f"/sweep/trial_ab_{number:05d}",
        checkpoint=SimpleNamespace(path=f"/sweep/trial_ab_{number:05d}/checkpoint_000000") if panels else None,
        error=error,
        metrics_dataframe=Frame(rows) if rows else None,
    )


GRID = [
    trial(0, 1e-4, [None, 20, None, 30]),
    trial(1, 1e-2, [None, 40, None, 60], objective="cispo & <co>"),
    trial(2, 1e-3, [None, 50, None, 50]),
    trial(3, 1e-3, [], error="Traceback\nValueError: lr=nan"),
    trial(4, 1e-3, [None]),
]


def test_the_panels_that_were_played_and_no_others_are_the_curve():
    first, *_ = read_results(GRID, VARIED, "evaluation/success_rate")
    assert [(point.iteration, point.rate) for point in first.curve] == [(2, 20 / 64), (4, 30 / 64)]
    assert (first.curve[1].low, first.curve[1].high) == pytest.approx(wilson_interval(30, 64))
    assert len(first.training) == 4


def test_iterations_that_a_trial_played_again_count_once():
    one = trial(0, 1e-4, [None, 20, None, 30])
    again = {**one.metrics_dataframe.rows[2], "env_runners/success_rate": 0.9}
    one.metrics_dataframe.rows.append(again)
    (result,) = read_results([one], VARIED, None)
    assert [point.iteration for point in result.curve] == [2]
    assert result.training == ((1, 0.1), (2, 0.2), (3, 0.9))


def test_the_best_is_that_of_the_metric_and_who_may_equal_it_is_counted():
    results = read_results(GRID, VARIED, "evaluation/success_rate")
    best = best_of(results, "max")
    assert best is not None
    assert best.trial_id == "ab_00001"
    assert best.settings == {"lr": 1e-2, "objective": "cispo & <co>", "env_config/max_objects": 1}
    assert undecided(results, best) == 1  # 50 of 64 against 60: the intervals touch
    worst = best_of(results, "min")
    assert worst is not None
    assert worst.trial_id == "ab_00000"
    by_return = best_of(read_results(GRID, VARIED, "env_runners/episode_return_mean"), "max")
    assert by_return is not None
    assert by_return.trial_id == "ab_00000"  # of equals the first
    assert best_of(read_results([GRID[3]], VARIED, None)) is None


def test_the_files_hold_the_table_and_are_json_without_nan(tmp_path: Path):
    results = read_results(GRID, VARIED, "evaluation/success_rate")
    write_results(tmp_path, results, VARIED, metric="evaluation/success_rate", mode="max")
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert content["best"] == "ab_00001"
    low, high = wilson_interval(60, 64)
    assert content["trials"][1]["panel"] == pytest.approx({"rate": 60 / 64, "low": low, "high": high, "episodes": 64})
    assert content["trials"][3]["error"] == "ValueError: lr=nan"
    assert content["trials"][3]["score"] is None
    table = (tmp_path / "results.md").read_text()
    assert re.search(r"\*\*00001\*\* \| \*\*0\.01\*\*.*93\.8% \[85, 98\]", table)
    assert as_table(results, VARIED, best_of(results)).row_count == 5


@pytest.mark.parametrize("grid", [GRID, GRID[:1], GRID[3:4], GRID[4:], []], ids=len)
def test_the_picture_is_svg_with_a_panel_for_the_curves_and_one_for_each_setting(grid: list[Any]):
    results = read_results(grid, VARIED, "evaluation/success_rate")
    picture = draw(results, VARIED, "a <sweep> & more")
    root = ElementTree.fromstring(picture)
    groups = root.findall("{http://www.w3.org/2000/svg}g")
    assert len(groups) == 1 + len(VARIED)
    assert "a <sweep> & more" in "".join(root.itertext())
    marks = [mark for group in groups for mark in group.iter("{http://www.w3.org/2000/svg}title")]
    played = [result for result in results if result.panel is not None]
    trained = [result for result in results if math.isfinite(result.success)]
    assert len(marks) == sum(len(result.curve) for result in played) + len(VARIED) * len(trained)
    numbers = [float(x) for x in re.findall(r'c[xy]="([-\d.]+)"', picture)]
    assert all(0 <= number <= 300 for number in numbers)
