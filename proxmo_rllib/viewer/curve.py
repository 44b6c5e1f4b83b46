"""The learning curve of a run, from its metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from proxmo_rllib.metrics_file import OF_A_TRIAL, MetricsRow, newest_of_each_iteration, read_metrics

#: What a point is called on the page: the metrics of its rate and of its 95% interval.
_SERIES = {
    "training": ("env_runners/success_rate", "success_low", "success_high"),
    "panel": ("evaluation/success_rate", "evaluation/success_low", "evaluation/success_high"),
}


def learning_curve(path: Path) -> tuple[dict[str, list[list[float]]], str | None]:
    """Success by iteration, as `[iteration, rate, low, high]`: of the training's episodes, and on the panel.

    Args:
        path: of the metrics; without it there are no points.

    Returns:
        The points, and the damage that they stop before, if any: the line and what is wrong with it.
    """
    rows, damage = _readable(path)
    curve: dict[str, list[list[float]]] = {name: [] for name in _SERIES}
    for row in newest_of_each_iteration(iter(rows)):
        for name, keys in _SERIES.items():
            values = [row.numbers.get(key) for key in keys]
            if all(_is_finite(value) for value in values):
                curve[name].append([float(row.iteration), *(float(value) for value in values if value is not None)])
    return curve, damage


def _readable(path: Path) -> tuple[list[MetricsRow], str | None]:
    """The rows before the first that is damaged, and what is wrong with it."""
    rows: list[MetricsRow] = []
    if not path.is_file():
        return rows, None
    try:
        rows.extend(read_metrics(path))
    except ValueError as error:
        again = "`proxmo train FILE --resume RUN` drops what cannot be read."
        return rows, f"{error}. The curve ends before it" + ("." if path.name == OF_A_TRIAL else f"; {again}")
    return rows, None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
