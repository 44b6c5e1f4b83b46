"""`proxmo view`: the record of a run, as people read it."""

from __future__ import annotations

import json

import pytest

from proxmo_rllib.cli.view import main, read_episodes
from proxmo_rllib.types import Status


def episode(number, status="success", iteration=1, task_type="pick"):
    turn = {
        "observation": f"[bold]Room {number}",
        "response": "<think>so</think><action>look</action>",
        "action": "look",
        "valid": number % 2 == 0,
        "reward": 1.0,
        "version": 3,
        "logprob": -0.5,
    }
    return {
        "iteration": iteration,
        "episode": f"e{number}",
        "group": "g",
        "task": f"task-{number}",
        "task_type": task_type,
        "status": status,
        "return": 1.0,
        "score": None,
        "error": "it broke" if status == "error" else None,
        "turns": [turn],
    }


@pytest.fixture
def run(tmp_path):
    episodes = [episode(1), episode(2, "failure", 2), episode(3, "error", 2, "heat")]
    lines = [json.dumps(entry) + "\n" for entry in episodes]
    (tmp_path / "episodes.jsonl").write_text("".join(lines) + '{"iterat')  # being written
    return tmp_path


def test_an_episode_is_shown_with_all_its_turns(run, capsys):
    assert main([str(run)]) == 0
    shown = capsys.readouterr().out
    for text in ("task-1", "[bold]Room 1", "<think>so</think>", "1 > look", "(invalid)", "reward 1", "it broke"):
        assert text in shown, text


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--iteration", "2"], {2, 3}), (["--status", "failure"], {2}), (["--task-type", "heat"], {3})],
)
def test_episodes_can_be_chosen(run, capsys, words, expected):
    assert main([str(run), *words]) == 0
    shown = capsys.readouterr().out
    assert {number for number in (1, 2, 3) if f"task-{number}" in shown} == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("success", {0}), ("failure", {1, 2}), ("truncated", {2}), ("error", {3})],
)
def test_a_failure_is_every_episode_that_did_not_solve_its_task(tmp_path, capsys, asked, expected):
    statuses = [status.value for status in (Status.SUCCESS, Status.FAILURE, Status.TRUNCATED, Status.ERROR)]
    assert len(statuses) == len(Status)
    lines = [json.dumps(episode(number, status)) + "\n" for number, status in enumerate(statuses)]
    (tmp_path / "episodes.jsonl").write_text("".join(lines))
    assert main([str(tmp_path), "--status", asked]) == 0
    shown = capsys.readouterr().out
    assert {number for number in range(4) if f"task-{number}" in shown} == expected


def test_no_record_and_no_fitting_episode_are_said(run, tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 1
    assert "there is no record" in capsys.readouterr().err
    assert main([str(run), "--iteration", "9"]) == 1
    assert "no episode" in capsys.readouterr().err


def test_a_damaged_line_is_named(run):
    text = (run / "episodes.jsonl").read_text()
    (run / "episodes.jsonl").write_text("{broken\n" + text)
    with pytest.raises(ValueError, match="line 1 is damaged"):
        list(read_episodes(run))
