"""TensorBoard, CSV and JSON by Ray's own loggers, for runs of `proxmo train` and for the trials of Tune.

Written for Ray 2.60; touches Ray's private names. Three habits of Ray's are changed. Its CSV has the columns of the
first result for ever, so that a panel that is played later is never in it, and a resumed run writes under other
headings than its own. A resumed run plays iterations again that are in the files already. And a trial that Tune starts
again loses rows.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback
from ray.tune.logger.tensorboardx import TBXLoggerCallback
from ray.tune.utils import flatten_dict

from proxmo_rllib.machine.disk import why_not_written, write_whole
from proxmo_rllib.training_run.folder import RunFolder
from proxmo_rllib.training_run.progress import PanelScore, Progress

logger = logging.getLogger(__name__)

STEP = "training_iteration"
CSV_FILE = "progress.csv"
JSON_FILE = "result.json"


class _KeepsItsRows(LoggerCallback):  # type: ignore[misc]
    """What is in the trial's file stays there when the trial is started again.

    Ray's loggers take the copy in the sweep's storage in its place, which lacks what was written since it was last
    brought up to date, up to five minutes: of a trial that PBT paused and started again, rows were gone.
    """

    def _restore_from_remote(self, file_name: str, trial: Any) -> None:
        if not Path(trial.local_path, file_name).is_file():
            super()._restore_from_remote(file_name, trial)


class JsonLogger(_KeepsItsRows, JsonLoggerCallback):  # type: ignore[misc]
    """Ray's, but for rows that it would lose."""


class CsvLogger(_KeepsItsRows, CSVLoggerCallback):  # type: ignore[misc]
    """Ray's, with a column for every metric of any result. A list, such as a histogram's values, has none."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Append a row; write the file anew, if it lacks a column."""
        if trial not in self._trial_files:
            self._setup_trial(trial)
        path = Path(trial.local_path, CSV_FILE)
        tmp = {key: value for key, value in result.items() if key != "config"}
        row = {key: value for key, value in flatten_dict(tmp, delimiter="/").items() if not isinstance(value, list)}
        columns = read_header(path)
        if missing := [key for key in row if key not in columns]:
            columns += missing
            self._trial_files[trial].close()
            with path.open(newline="") as file:
                write_whole(path, csv_lines(columns, csv.DictReader(file)))
            self._trial_files[trial] = path.open("at", newline="")
        csv.DictWriter(self._trial_files[trial], columns, restval="").writerow(row)
        self._trial_files[trial].flush()

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Close the file."""
        if trial in self._trial_files:
            self._trial_files.pop(trial).close()


class TensorBoardLogger(TBXLoggerCallback):  # type: ignore[misc]
    """Ray's. TensorBoard forgets what it has of a run from its first iteration here on, which is played again."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = self._summary_writer_cls  # type: ignore[has-type]

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Write the result's numbers, and a histogram of each list."""
        if trial not in self._trial_writer:
            self._summary_writer_cls = functools.partial(self._writer, purge_step=result[STEP])
        super().log_trial_result(iteration, trial, result)


def callbacks(names: Sequence[str], given: Sequence[Any] = ()) -> list[LoggerCallback]:
    """Ray's loggers for Tune, by name, but for those that are given: two would write into one file."""
    return [LOGGERS[name]() for name in names if not any(isinstance(one, _RAYS[name]) for one in given)]


#: By the word that `--loggers` takes.
LOGGERS: Mapping[str, type[LoggerCallback]] = {
    "tensorboard": TensorBoardLogger,
    "csv": CsvLogger,
    "json": JsonLogger,
}
_RAYS: Mapping[str, type[LoggerCallback]] = {
    "tensorboard": TBXLoggerCallback,
    "csv": CSVLoggerCallback,
    "json": JsonLoggerCallback,
}


@dataclass(eq=False)
class _Run:
    """What Ray's loggers ask of a trial."""

    local_path: str
    config: Mapping[str, Any]
    checkpoint: None = None  # nothing is fetched from elsewhere
    evaluated_params: Mapping[str, Any] = field(default_factory=dict)

    def init_local_path(self) -> None:
        """The run's folder is there."""


class RayLoggers:
    """Writes a run with Ray's loggers into the run's folder.

    Args:
        names: of `LOGGERS`.
        folder: of the run.
        config: settings, as plain values.
    """

    closing = "closing the loggers' files"
    patience_s = 30.0

    def __init__(self, names: Sequence[str], folder: RunFolder, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._run = _Run(str(folder.path), dict(config))
        self._loggers = dict(zip(names, callbacks(names), strict=True))
        self._begun = False

    @property
    def place(self) -> str:
        """Where the files are, in words."""
        shown = {"tensorboard": f"tensorboard --logdir {self._folder.path}", "csv": CSV_FILE, "json": JSON_FILE}
        return "loggers: " + ", ".join(shown[name] for name in self._loggers)

    def on_panel(self, score: PanelScore, iteration: int) -> None:
        self._write(iteration, self._folder.last_metrics(), {})

    def on_iteration(
        self, progress: Progress, metrics: Mapping[str, float | None], episodes: Sequence[Mapping[str, Any]]
    ) -> None:
        self._write(progress.iteration, metrics, progress.histograms)

    def on_checkpoint(self, checkpoint: Path) -> None:
        """They have no room for checkpoints."""

    def finish(self, failed: bool = False) -> None:
        """Closes the files."""
        for name, one in self._loggers.items():
            self._attempt(name, lambda one=one: one.log_trial_end(self._run, failed=failed))

    def _write(
        self, iteration: int, numbers: Mapping[str, float | None], histograms: Mapping[str, Sequence[float]]
    ) -> None:
        if not self._begun:
            self._begun = True
            forget_from(self._folder.path, iteration)
        row = {key: value for key, value in numbers.items() if value is not None} | {STEP: iteration}
        for name, one in list(self._loggers.items()):
            result = row | dict(histograms) if name == "tensorboard" else row
            self._attempt(name, lambda one=one, result=result: one.log_trial_result(iteration, self._run, result))

    def _attempt(self, name: str, call: Any) -> None:
        try:
            call()
        except OSError as error:
            del self._loggers[name]
            logger.warning(
                "The logger %s ends here: %s. %s has everything.",
                name,
                why_not_written(error, self._folder.path),
                self._folder.metrics,
            )


def forget_from(folder: Path, iteration: int) -> None:
    """Drops rows of this iteration and later ones, which are played again, and a row that a kill cut."""
    path = folder / CSV_FILE
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if _is_before(row.get(STEP), iteration)]
        write_whole(path, csv_lines(read_header(path), rows))
    path = folder / JSON_FILE
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        write_whole(path, [line for line in lines if _is_before(_step(line), iteration)])


def read_header(path: Path) -> list[str]:
    """The columns of a CSV file; none if it is empty."""
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def csv_lines(columns: Sequence[str], rows: Any) -> Iterator[str]:
    """A CSV file, line by line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
    yield text.getvalue()


def _step(line: str) -> Any:
    try:
        return json.loads(line)[STEP]
    except ValueError:
        return None


def _is_before(step: Any, iteration: int) -> bool:
    try:
        return float(step) < iteration
    except (TypeError, ValueError):
        return False
