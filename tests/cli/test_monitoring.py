"""What the options of W&B and of the loggers take and refuse, before anything starts."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.logger import CSVLoggerCallback

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.cli import monitoring, train
from proxmo_rllib.cli import tune as sweep
from proxmo_rllib.cli.monitoring import Monitoring
from proxmo_rllib.training_run import RunFolder


def test_the_options_say_where_numbers_go():
    options = "--wandb p --wandb-group seeds --wandb-tags tiny,seed-1 --wandb-artifacts --loggers csv,tensorboard"
    found = train.parse(["quickstart", *options.split()]).monitoring
    assert found == Monitoring("p", "seeds", ("tiny", "seed-1"), True, ("csv", "tensorboard"))
    assert train.parse(["quickstart"]).monitoring == monitoring.NOTHING
    found = sweep.parse(["x.py", "--wandb", "p", "--wandb-tags", "a", "--loggers", "csv"]).monitoring
    assert found == Monitoring("p", None, ("a",), False, ("csv",))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--loggers tensorbord", "--loggers: 'tensorbord' is not known (did you mean 'tensorboard'?)"),
        ("--loggers csv,", "--loggers: '' is not known; known are tensorboard, csv, json"),
        ("--wandb-artifacts", "--wandb-artifacts goes with W&B: say --wandb PROJECT too"),
        ("--wandb-tags a", "--wandb-tags goes with W&B"),
        ("--wandb-group a", "--wandb-group goes with W&B"),
        ("--wandb p --wandb-tags a,,b", "--wandb-tags: '' is none; a tag has 1 to 64 characters"),
        (f"--wandb p --wandb-tags {'a' * 65}", "a tag has 1 to 64 characters"),
        (f"--wandb p --wandb-group {'a' * 129}", "it has 1 to 128 characters"),
        ("--wandb=", "--wandb '': name the project"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options: str, says: str, capsys: Any):
    with pytest.raises(SystemExit):
        train.parse(["quickstart", *options.split()])
    assert says in capsys.readouterr().err


def test_a_sweep_has_no_option_for_what_its_name_says(capsys: Any):
    with pytest.raises(SystemExit):
        sweep.parse(["x.py", "--wandb", "p", "--wandb-group", "g"])
    assert "--wandb-group" in capsys.readouterr().err


def test_tensorboard_without_its_package_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else found(name))
    with pytest.raises(SystemExit):
        train.parse(["quickstart", "--loggers", "tensorboard"])
    assert "pip install tensorboardX" in capsys.readouterr().err


def test_a_resumed_run_logs_where_it_did_unless_told_otherwise(tmp_path: Path):
    asked = Monitoring("p", "g", ("a", "b"), True, ("csv",))
    assert monitoring.recalled(asked, RunFolder(tmp_path)) == asked
    assert monitoring.recalled(monitoring.NOTHING, RunFolder(tmp_path)) == asked
    other = Monitoring(loggers=("json",))
    assert monitoring.recalled(other, RunFolder(tmp_path)) == other
    assert monitoring.recalled(monitoring.NOTHING, RunFolder(tmp_path)) == other


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        (monitoring.NOTHING, False),
        (Monitoring(loggers=("csv", "json")), False),
        (Monitoring(loggers=("tensorboard",)), True),
        (Monitoring(project="p"), True),
    ],
)
def test_histograms_are_measured_where_somebody_shows_them(asked: Monitoring, measured: bool):
    assert asked.measured_by(ProxMOConfig()).log_histograms is measured


def test_a_sweep_writes_what_it_is_told_and_always_what_tune_reads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", raising=False)

    def names(asked: Monitoring) -> list[str]:
        config = ProxMOConfig().training(psc_beta=tune.grid_search([0.0, 0.1]))
        return [type(one).__name__ for one in monitoring.for_trials(asked, config)]

    everything = ["TensorBoardLogger", "CsvLogger", "JsonLogger"]
    assert names(monitoring.NOTHING) == everything
    assert names(Monitoring(project="p")) == [*everything, "TuneWandbCallback"]
    assert "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS" not in os.environ
    own = monitoring.for_trials(monitoring.NOTHING, ProxMOConfig(), given=[CSVLoggerCallback()])
    assert [type(one).__name__ for one in own] == ["TensorBoardLogger", "JsonLogger"]
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "0")
    assert names(Monitoring(loggers=("csv",))) == everything[1:]
    assert os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] == "1"


def test_a_sweep_says_where_wandb_has_it(tmp_path: Path):
    folder = tmp_path / "psc"
    assert monitoring.where_trials_are(monitoring.NOTHING, folder) is None
    asked = Monitoring(project="p")
    assert monitoring.where_trials_are(asked, folder) == "W&B: project p, group psc"
    (folder / "wandb" / "offline-run-1-x").mkdir(parents=True)
    said = monitoring.where_trials_are(asked, folder)
    assert said == f"W&B, offline; send the trials with: wandb sync {folder}/wandb/offline-run-*"
