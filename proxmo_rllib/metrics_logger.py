"""RLlib's MetricsLogger, with three habits changed. Leans on the insides of its Stats classes; written for Ray 2.60.

RLlib reports whatever was ever logged: where an iteration logged nothing, as NaN, which looks like a number that went
wrong. It smooths its own timers over some hundred iterations. And its means of several parts are means of means; this
one knows those of `exact_stats` too.
"""

from __future__ import annotations

import math
from typing import Any

from ray.rllib.utils.metrics import RESTORE_ENV_RUNNERS_TIMER, TIMERS, TRAINING_ITERATION_TIMER, TRAINING_STEP_TIMER
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.metrics.stats import EmaStats, ItemStats, StatsBase

from proxmo_rllib.exact_stats import EXACT_STATS, ExactStats

_RLLIBS_TIMERS = (TRAINING_ITERATION_TIMER, TRAINING_STEP_TIMER, RESTORE_ENV_RUNNERS_TIMER)


class LoggedMetrics(MetricsLogger):
    """Reports what was logged since the last report, and nothing else. A NaN that was logged stays a NaN."""

    @classmethod
    def like(cls, other: MetricsLogger) -> LoggedMetrics:
        """An empty one of the same kind, to take the place of another before anything matters in it."""
        new = cls(root=other._is_root_logger, stats_cls_lookup={**other.stats_cls_lookup, **EXACT_STATS})
        new.stats = other.stats
        return new

    @classmethod
    def part_of(cls, other: MetricsLogger) -> LoggedMetrics:
        """An empty one, whose reports are aggregated into the other."""
        return cls(root=False, stats_cls_lookup={**other.stats_cls_lookup, **EXACT_STATS})

    def time_each_iteration(self) -> None:
        """Has the timers that RLlib starts itself report the last iteration's seconds, instead of a moving average."""
        for timer in _RLLIBS_TIMERS:
            self.log_value((TIMERS, timer), 0.0, reduce="mean", window=1)

    def reduce(self, compile: bool = False) -> dict[str, Any]:  # noqa: A002 - RLlib's name
        """As RLlib's, without the keys that nothing was logged under."""
        silent = _silent(self.stats)
        return _without(super().reduce(compile), silent)


def _silent(stats: Any) -> Any:
    """The same tree with True in the place of what holds nothing."""
    if isinstance(stats, dict):
        return {key: _silent(value) for key, value in stats.items()}
    return isinstance(stats, StatsBase) and not _holds_something(stats)


def _holds_something(stats: StatsBase) -> bool:
    if isinstance(stats, EmaStats):
        return bool(getattr(stats, "_values_to_merge", ())) or not math.isnan(float(stats._value))
    if isinstance(stats, ItemStats):
        return stats._item is not None
    if isinstance(stats, ExactStats):
        return len(stats) > 0
    values = getattr(stats, "values", None)
    return values is None or len(values) > 0


def _without(reduced: Any, silent: Any) -> Any:
    if not isinstance(reduced, dict):
        return reduced
    kept: dict[str, Any] = {}
    for key, value in reduced.items():
        gone = silent.get(key, False)
        if gone is True:
            continue
        kept[key] = _without(value, gone) if isinstance(gone, dict) else value
        if isinstance(gone, dict) and value and not kept[key]:
            del kept[key]
    return kept
