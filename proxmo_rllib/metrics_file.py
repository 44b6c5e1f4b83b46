"""The numbers of a run's iterations: metrics.jsonl of a run, and result.json, in which Tune has those of a trial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from proxmo_rllib.evaluation.intervals import wilson_interval
from proxmo_rllib.json_lines import iteration_of, read_object
from proxmo_rllib.machine.disk import whole_lines

NAME = "metrics.jsonl"
OF_A_TRIAL = "result.json"
#: Of a sweep's folder, in which each trial has one.
_SWEEP = "sweep.json"

#: Parts of a result that are no measurements.
NOT_MEASURED = frozenset({"config", "done", "trial_id", "pid", "hostname", "node_ip", "date", "timestamp"})


class MetricsRow(NamedTuple):
    """The numbers of an iteration, and where they stand."""

    iteration: int
    numbers: Mapping[str, Any]  # those of metrics.jsonl as they stand there; of result.json only what is a number
    where: str


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """The numbers of a nested result under keys like "env_runners/success_rate".

    Args:
        result: of `Algorithm.train`. What is no number is left out; a number that is not finite becomes None, since
            JSON has none.
        prefix: of the keys.
    """
    flat: dict[str, float | None] = {}
    for key, value in result.items():
        if not prefix and key in NOT_MEASURED:
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        elif not isinstance(value, bool) and isinstance(value, Real):
            flat[f"{prefix}{key}"] = float(value) if math.isfinite(value) else None
    return flat


def metrics_of(run: Path) -> Path:
    """The file of numbers that a path names: itself, or that of a run's or a trial's folder, which may not be there."""
    if run.is_file():
        return run
    return run / (OF_A_TRIAL if (run / OF_A_TRIAL).is_file() and not (run / NAME).is_file() else NAME)


def read_metrics(path: Path) -> Iterator[MetricsRow]:
    """The rows of a file, oldest first; one that is being written is left out.

    Args:
        path: as of `metrics_of`.

    Raises:
        ValueError: a line is damaged; names it.
    """
    of_a_trial = path.name == OF_A_TRIAL
    for number, line in enumerate(whole_lines(path), start=1):
        where = f"{path}, line {number}"
        row = read_object(line, where)
        if not of_a_trial:
            yield MetricsRow(iteration_of(line, where), row, where)
            continue
        iteration = row.get("training_iteration")
        if type(iteration) is not int:
            raise ValueError(f"{where} is damaged: training_iteration is {iteration!r:.80}")
        yield MetricsRow(iteration, _as_of_a_run(flatten(row), iteration), where)


def _as_of_a_run(numbers: dict[str, float | None], iteration: int) -> dict[str, float | None]:
    """With what `proxmo train` adds to a result and those who look at a run read."""
    numbers["iteration"] = iteration
    played, successes = numbers.get("env_runners/num_episodes"), numbers.get("env_runners/num_successes")
    if played and successes is not None:
        numbers["success_low"], numbers["success_high"] = wilson_interval(successes, played)
    return numbers


def newest_of_each_iteration(rows: Iterator[MetricsRow]) -> list[MetricsRow]:
    """The rows without those of iterations that were played again, as a trial does that went back to a checkpoint."""
    kept: list[MetricsRow] = []
    for row in rows:
        while kept and kept[-1].iteration >= row.iteration:
            kept.pop()
        kept.append(row)
    return kept


def trials_in(folder: Path) -> str:
    """In words, where a folder is a sweep's and no run's: which trials lie in it; else nothing."""
    if not (folder / _SWEEP).is_file():
        return ""
    trials = sorted(path.parent.name for path in folder.glob(f"*/{OF_A_TRIAL}"))
    named = f"name one of its trials: {', '.join(trials)}" if trials else "none of its trials has reported yet"
    return f"{folder} is the folder of a sweep; {named}."
