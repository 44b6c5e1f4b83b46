"""TensorBoard, CSV and JSON of a run, read back; a resumed one goes on where it was."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem

from proxmo_rllib.monitoring.ray_loggers import LOGGERS, CsvLogger, RayLoggers, callbacks
from proxmo_rllib.training_run import RunFolder
from tests.monitoring.conftest import begin, iterate, result_of

NAMES = ("tensorboard", "csv", "json")
RATE, PANEL = "env_runners/success_rate", "evaluation/by_task_type/pick/success_rate"
Open = Callable[[], RunFolder]


def events(folder: Path) -> list[Any]:
    """What TensorBoard would read, in its order: length (8 bytes), checksum (4), event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += length + 16
    return found


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values as TensorBoard shows them: it forgets what a restart says that it plays again."""
    points: list[tuple[int, float]] = []
    for event in events(folder):
        if event.HasField("session_log"):
            points = [point for point in points if point[0] < event.step]
        points += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return points


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def start(folder: RunFolder, names: tuple[str, ...] = NAMES) -> RayLoggers:
    return RayLoggers(names, folder, {"num_groups": 4})


def test_all_three_have_every_iteration_and_the_panel_that_is_played_later(new_folder: Open):
    folder = new_folder()
    loggers = start(folder)
    iterate(loggers, result_of(1))
    iterate(loggers, result_of(2, panel=0.5))
    iterate(loggers, result_of(3))
    loggers.finish()
    rows = rows_of(folder.path / "progress.csv")
    assert [row["training_iteration"] for row in rows] == ["1", "2", "3"]
    assert [row[PANEL] for row in rows] == ["", "0.5", ""]
    assert not any("histograms" in column for column in rows[0])
    lines = [json.loads(line) for line in (folder.path / "result.json").read_text().splitlines()]
    assert [(line["training_iteration"], line.get(PANEL)) for line in lines] == [(1, None), (2, 0.5), (3, None)]
    assert json.loads((folder.path / "params.json").read_text()) == {"num_groups": 4}
    assert curve(folder.path, f"ray/tune/{RATE}") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert curve(folder.path, f"ray/tune/{PANEL}") == [(2, 0.5)]
    (histogram,) = [
        value.histo
        for event in events(folder.path)
        if event.step == 1
        for value in event.summary.value
        if value.tag == "ray/tune/env_runners/histograms/episode_len"
    ]
    assert (histogram.num, histogram.min, histogram.max) == (4, 1, 5)


def test_the_evaluation_before_training_is_step_zero(new_folder: Open):
    folder = new_folder()
    loggers = start(folder)
    begin(folder, loggers, rate=0.25)
    iterate(loggers, result_of(1))
    loggers.finish()
    rows = rows_of(folder.path / "progress.csv")
    assert [(row["training_iteration"], row["evaluation/success_rate"]) for row in rows] == [("0", "0.25"), ("1", "")]
    assert curve(folder.path, "ray/tune/evaluation/success_rate") == [(0, 0.25)]


def test_a_resumed_run_has_each_iteration_once_under_its_own_heading(new_folder: Open):
    """The killed one was at iteration 4, with a checkpoint at 2; the resumed one begins with a panel."""
    folder = new_folder()
    killed = start(folder)
    for iteration in range(1, 5):
        iterate(killed, result_of(iteration))
    with (folder.path / "progress.csv").open("a") as file:
        file.write("0.5,")  # what a kill left of a row
    with (folder.path / "result.json").open("a") as file:
        file.write('{"training_it')
    (written,) = folder.path.glob("events.out.tfevents.*")
    written.rename(written.with_name("events.out.tfevents.0000000001"))  # the other begins in the same second here
    loggers = start(new_folder())
    iterate(loggers, result_of(3, panel=0.5))
    iterate(loggers, result_of(4))
    loggers.finish()
    rows = rows_of(folder.path / "progress.csv")
    assert [row["training_iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert [row[PANEL] for row in rows] == ["", "", "0.5", ""]
    assert [row["learners/default_policy/total_loss"] for row in rows] == ["0.1", "0.2", "0.30000000000000004", "0.4"]
    lines = [json.loads(line) for line in (folder.path / "result.json").read_text().splitlines()]
    assert [line["training_iteration"] for line in lines] == [1, 2, 3, 4]
    assert [step for step, _ in curve(folder.path, f"ray/tune/{RATE}")] == [1, 2, 3, 4]


def test_only_what_was_named_is_written(new_folder: Open):
    folder = new_folder()
    loggers = start(folder, ("csv",))
    iterate(loggers, result_of(1))
    loggers.finish()
    written = {path.name for path in folder.path.iterdir()}
    assert "progress.csv" in written
    assert not any(name.startswith(("events", "result", "params")) for name in written)


def test_a_disk_that_takes_no_more_ends_a_logger_and_not_the_run(
    new_folder: Open, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    loggers = start(new_folder(), ("csv", "json"))
    iterate(loggers, result_of(1))
    monkeypatch.setattr(CsvLogger, "log_trial_result", full)
    iterate(loggers, result_of(2))
    iterate(loggers, result_of(3))
    loggers.finish()
    assert caplog.text.count("The logger csv ends here") == 1
    assert len((new_folder().path / "result.json").read_text().splitlines()) == 3


def test_a_trial_of_tune_has_a_column_for_what_comes_later_too(tmp_path: Path):
    trial: Any = SimpleNamespace(local_path=str(tmp_path), checkpoint=None, init_local_path=lambda: None)
    key = type("Trial", (), {**vars(trial), "init_local_path": lambda self: None})()
    one = CsvLogger()
    one.log_trial_result(1, key, {"training_iteration": 1, "config": {"a": 1}})
    one.log_trial_result(2, key, {"training_iteration": 2, "evaluation": {"success_rate": 0.5}, "values": [1, 2]})
    one.log_trial_end(key)
    assert rows_of(tmp_path / "progress.csv") == [
        {"training_iteration": "1", "evaluation/success_rate": ""},
        {"training_iteration": "2", "evaluation/success_rate": "0.5"},
    ]


@pytest.mark.parametrize("name", ["json", "csv"])
@pytest.mark.parametrize("stored", ["older", "only"])
def test_a_trial_that_tune_starts_again_keeps_the_rows_that_its_storage_lacks(tmp_path: Path, name: str, stored: str):
    """Ray's own loggers take what is stored, as old as it may be."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    storage = SimpleNamespace(trial_fs_path=str(there), storage_filesystem=LocalFileSystem())
    trial: Any = type("Trial", (), {"init_local_path": lambda self: None})()
    trial.__dict__.update(local_path=str(here), checkpoint=None, storage=storage, config={}, evaluated_params={})
    file = here / {"json": "result.json", "csv": "progress.csv"}[name]
    (logger,) = callbacks([name])
    logger.on_trial_start(0, [trial], trial)
    for iteration in (1, 2, 3):
        logger.on_trial_result(iteration, [trial], trial, {"training_iteration": iteration})
        if iteration == 1 or stored == "only":
            shutil.copy(file, there)  # as Tune does every five minutes
    logger.on_trial_complete(3, [trial], trial)
    if stored == "only":  # the sweep was gone on with, on another machine
        shutil.rmtree(here)
        here.mkdir()
    trial.checkpoint = "one"
    (again,) = callbacks([name])
    again.on_trial_start(3, [trial], trial)
    again.on_trial_result(4, [trial], trial, {"training_iteration": 4})
    again.on_trial_complete(4, [trial], trial)
    assert re.findall(r"^\D*(\d)\D*$", file.read_text(), re.M) == ["1", "2", "3", "4"]


def test_the_command_line_knows_the_same_loggers():
    from proxmo_rllib.cli import monitoring

    assert set(monitoring.LOGGERS) == set(LOGGERS)
