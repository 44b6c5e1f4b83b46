"""What came of a sweep: a row a trial, the best one, and both as files that people and programs read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.machine.disk import write_whole
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.training_run.progress import PanelScore
from proxmo_rllib.tuning.board import entry, rate, short, shown

if TYPE_CHECKING:
    from ray.tune import ResultGrid

NAME = "results.json"
TABLE = "results.md"
PICTURE = "sweep.svg"


@dataclass(frozen=True, slots=True)
class Point:
    """The panel at an iteration."""

    iteration: int
    rate: float
    low: float  # of the 95% interval
    high: float


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What came of a trial."""

    trial_id: str
    settings: dict[str, Any]  # those that were searched, as they were in the end
    iterations: int
    success: float  # of the last iteration's episodes; NaN if there were none
    panel: PanelScore | None  # the newest
    score: float  # the metric by which trials are compared; NaN if it has none
    episode_return: float
    minutes: float
    checkpoint: str | None
    error: str | None
    curve: tuple[Point, ...] = ()
    training: tuple[tuple[int, float], ...] = ()  # iteration, success of its episodes


def read_results(grid: ResultGrid, varied: Sequence[str], metric: str | None) -> list[TrialResult]:
    """What came of each trial, in the order in which they were made.

    Args:
        grid: what `Tuner.fit` returned.
        varied: the settings that tell trials apart.
        metric: by which they are compared; None for success on the panel, or in training where there is none.
    """
    return [_read(result, varied, metric) for result in grid]


def _read(result: Any, varied: Sequence[str], metric: str | None) -> TrialResult:
    metrics: Mapping[str, Any] = result.metrics or {}
    config = result.config or metrics.get("config") or {}
    evaluation = metrics.get("evaluation") or {}
    panel = PanelScore.from_metrics(evaluation) if "num_episodes" in evaluation else None
    numbers = flatten(metrics)
    success = _number(numbers.get("env_runners/success_rate"))
    score = _number(numbers.get(metric)) if metric else (panel.rate if panel else success)
    frame = result.metrics_dataframe
    return TrialResult(
        trial_id=str(metrics.get("trial_id") or Path(result.path).name.removeprefix("trial_")),
        settings={name: entry(config, name) for name in varied},
        iterations=int(metrics.get("training_iteration", 0)),
        success=success,
        panel=panel,
        score=score,
        episode_return=_number(numbers.get("env_runners/episode_return_mean")),
        minutes=float(metrics.get("time_total_s", 0.0)) / 60,
        checkpoint=None if result.checkpoint is None else str(result.checkpoint.path),
        error=None if result.error is None else str(result.error).strip().splitlines()[-1],
        curve=() if frame is None else _curve(frame),
        training=() if frame is None else _training(frame),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _curve(frame: Any) -> tuple[Point, ...]:
    """The panels that were played. Each result has the newest, also where an earlier iteration played it."""
    columns = ("success_rate", "success_low", "success_high", "seconds")
    if any(f"evaluation/{name}" not in frame for name in columns):
        return ()
    points: list[Point] = []
    seen: set[tuple[float, ...]] = set()
    for _, row in frame.iterrows():
        panel = tuple(float(row[f"evaluation/{name}"]) for name in columns)
        while points and points[-1].iteration >= int(row["training_iteration"]):  # the trial went back to a checkpoint
            points.pop()
        if all(math.isfinite(value) for value in panel) and panel not in seen:
            points.append(Point(int(row["training_iteration"]), *panel[:3]))
            seen.add(panel)
    return tuple(points)


def _training(frame: Any) -> tuple[tuple[int, float], ...]:
    if "env_runners/success_rate" not in frame:
        return ()
    pairs = zip(frame["training_iteration"], frame["env_runners/success_rate"], strict=True)
    newest: dict[int, float] = {}
    for iteration, value in pairs:
        newest = {earlier: rate for earlier, rate in newest.items() if earlier < iteration}  # it may have gone back
        newest[int(iteration)] = float(value)
    return tuple((iteration, value) for iteration, value in newest.items() if math.isfinite(value))


def best_of(results: Sequence[TrialResult], mode: str | None = None) -> TrialResult | None:
    """The trial with the best score; of equals the first. None if none has a score.

    Args:
        results: of the trials.
        mode: "min" where less is better.
    """
    scored = [result for result in results if math.isfinite(result.score)]
    sign = -1 if mode == "min" else 1
    return max(scored, key=lambda result: sign * result.score, default=None)


def undecided(results: Sequence[TrialResult], best: TrialResult) -> int:
    """How many other trials have a panel whose interval reaches into the best one's."""
    if best.panel is None:
        return 0
    low = best.panel.interval[0]
    return sum(other is not best and other.panel is not None and other.panel.interval[1] >= low for other in results)


def headings(results: Sequence[TrialResult], varied: Sequence[str]) -> list[str]:
    """Of the table's columns; without those of which no trial has anything."""
    panel = ["panel [95%]"] if any(result.panel for result in results) else []
    return ["trial", *varied, "iterations", "success", *panel, "return", "minutes"]


def cells(result: TrialResult, names: Sequence[str]) -> list[str]:
    """A trial's row of the table."""
    said = {
        "trial": short(result.trial_id),
        "iterations": str(result.iterations),
        "success": rate(result.success),
        "panel [95%]": "-" if result.panel is None else interval(result.panel),
        "return": f"{result.episode_return:.3f}" if math.isfinite(result.episode_return) else "-",
        "minutes": f"{result.minutes:.1f}",
        **{name: shown(value) for name, value in result.settings.items()},
    }
    return [said[name] for name in names]


def interval(panel: PanelScore) -> str:
    """A panel's success rate with its 95% interval in few characters."""
    low, high = panel.interval
    return f"{panel.rate:.1%} [{100 * low:.0f}, {100 * high:.0f}]"


def write_results(
    folder: Path, results: Sequence[TrialResult], varied: Sequence[str], *, metric: str | None, mode: str | None
) -> None:
    """Writes `results.json` and `results.md` into the sweep's folder.

    Raises:
        OSError: the disk does not take them.
    """
    best = best_of(results, mode)
    content = {
        "metric": metric,
        "mode": mode or "max",
        "best": best.trial_id if best else None,
        "trials": [_as_json(result) for result in results],
    }
    write_whole(folder / NAME, [json.dumps(content, indent=1, allow_nan=False)])
    names = headings(results, varied)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for result in results:
        row = cells(result, names)
        lines.append("| " + " | ".join(f"**{cell}**" if result is best else cell for cell in row) + " |")
    lines += ["", f"Best: {short(best.trial_id)}, {best.checkpoint}" if best else "No trial has a score.", ""]
    write_whole(folder / TABLE, ["\n".join(lines)])


def _as_json(result: TrialResult) -> dict[str, Any]:
    """A trial as JSON has it: None in the place of what is no number."""
    record = asdict(result)
    if result.panel is not None:
        low, high = result.panel.interval
        record["panel"] = {"rate": result.panel.rate, "low": low, "high": high, "episodes": result.panel.episodes}
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
    return finite | {"settings": {name: _plain(value) for name, value in result.settings.items()}}


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
