"""The numbers of a run's iterations, as those who look at a run read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxmo_rllib.cli import diagnose
from proxmo_rllib.evaluation.intervals import wilson_interval
from proxmo_rllib.metrics_file import metrics_of, newest_of_each_iteration, read_metrics
from proxmo_rllib.record_file import record_of
from proxmo_rllib.viewer.curve import learning_curve


def result(iteration: int, rate: float) -> dict[str, Any]:
    """As Tune writes it: nested, with what is no measurement."""
    return {
        "training_iteration": iteration,
        "env_runners": {"success_rate": rate, "num_successes": round(10 * rate), "num_episodes": 10},
        "evaluation": {"success_rate": float("nan")},
        "config": {"lr": 1e-3},
        "done": False,
        "hostname": "here",
    }


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """A trial that was at its third iteration, and went back behind its first."""
    folder = tmp_path / "sweep" / "trial_0"
    folder.mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    rows = [result(1, 0.1), result(2, 0.2), result(3, 0.3), result(2, 0.5)]
    (folder / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"training')
    (folder / "params.json").write_text('{"max_response_tokens": 16}')
    return folder


def test_a_trials_rows_are_numbers_under_the_names_of_a_runs(trial: Path):
    rows = list(read_metrics(metrics_of(trial)))
    assert [row.iteration for row in rows] == [1, 2, 3, 2]
    assert rows[0].numbers["env_runners/success_rate"] == 0.1
    assert rows[0].numbers["evaluation/success_rate"] is None
    assert not {"done", "hostname", "config/lr"} & set(rows[0].numbers)
    assert rows[3].where.endswith("result.json, line 4")


def test_iterations_that_were_played_again_count_once(trial: Path):
    rows = newest_of_each_iteration(read_metrics(metrics_of(trial)))
    assert [(row.iteration, row.numbers["env_runners/success_rate"]) for row in rows] == [(1, 0.1), (2, 0.5)]
    curve, damage = learning_curve(metrics_of(trial))
    intervals = [wilson_interval(1, 10), wilson_interval(5, 10)]
    assert curve == {"training": [[1.0, 0.1, *intervals[0]], [2.0, 0.5, *intervals[1]]], "panel": []}
    assert damage is None


def test_a_trial_is_diagnosed(trial: Path, capsys: pytest.CaptureFixture[str]):
    assert diagnose.main([str(trial)]) == 0
    assert capsys.readouterr().out == "iterations 1 to 2:\nnothing is off\n"
    assert diagnose.read_settings(trial) == {"max_response_tokens": 16}


def test_a_runs_own_metrics_come_before_those_that_a_logger_of_rays_wrote(trial: Path):
    (trial / "metrics.jsonl").write_text('{"iteration": 1.0}\n')
    assert metrics_of(trial).name == "metrics.jsonl"
    assert metrics_of(trial.parent).name == "metrics.jsonl"


@pytest.mark.parametrize("line", ["[]", "{}", '{"training_iteration": "one"}', "not so"])
def test_damage_is_named_with_its_place(trial: Path, line: str):
    (trial / "result.json").write_text(json.dumps(result(1, 0.1)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"result\.json, line 2 is damaged"):
        list(read_metrics(metrics_of(trial)))
    curve, damage = learning_curve(metrics_of(trial))
    assert len(curve["training"]) == 1
    assert damage is not None
    assert "--resume" not in damage  # which `proxmo train` has, and goes on with no trial


def test_the_folder_of_a_sweep_names_its_trials(trial: Path, capsys: pytest.CaptureFixture[str]):
    says = r"sweep is the folder of a sweep; name one of its trials: trial_0\."
    with pytest.raises(ValueError, match=says):
        record_of(trial.parent)
    assert diagnose.main([str(trial.parent)]) == 2
    assert "name one of its trials: trial_0." in capsys.readouterr().err
    (trial / "result.json").unlink()
    with pytest.raises(ValueError, match="none of its trials has reported yet"):
        record_of(trial.parent)
