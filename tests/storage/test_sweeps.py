"""A sweep whose trials are on storage: begun here, interrupted, gone on with elsewhere."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxmo_rllib.storage import open_place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILE = """
import gymnasium
from ray import tune
import env_wrappers
from env_wrappers.panels import panel_from_split
from proxmo_rllib import ProxMOConfig, StopCriteria

ROOM = {{"rooms": ("bathroom",), "max_receptacles": 3, "max_objects": 2}}
config = (
    ProxMOConfig()
    .environment("env_wrappers/ALFWorld-v0", env_config=ROOM)
    .policy(pretrained={policy!r})
    .inference(engine="transformers", max_model_len=512, max_response_tokens=4)
    .env_runners(num_env_runners=1, max_turns=2)
    .training(num_groups=4, group_size=2, lr=tune.grid_search([1e-3, 2e-3]))
    .evaluation(
        panel=panel_from_split(gymnasium.make("env_wrappers/ALFWorld-v0", **ROOM), "valid_unseen", 4),
        evaluation_interval=2,
    )
)
tune_config = tune.TuneConfig(metric="evaluation/success_rate", mode="max", max_concurrent_trials=1)
stop = StopCriteria(iterations={iterations})
"""
ITERATIONS = 6


@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.others)])
def test_an_interrupted_sweep_goes_on_from_storage_elsewhere(kind, request, tmp_path, tiny_policy, monkeypatch):
    there = f"file://{tmp_path}/there" if kind == "file" else request.getfixturevalue("s3")
    monkeypatch.setenv("PROXMO_RUNS", there)
    monkeypatch.setenv("PROXMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "mine.py"
    file.write_text(FILE.format(policy=str(tiny_policy), iterations=ITERATIONS))

    def tune(folder: str, *words: str) -> subprocess.Popen[str]:
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-m", "proxmo_rllib.cli", "tune", str(file), *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path / folder
        )

    first = tune("one")
    while not list((tmp_path / "one").glob("runs/mine-*/log.txt")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.5)
    name = next((tmp_path / "one").glob("runs/mine-*")).name
    place = open_place(f"{there}/{name}")
    while not any(re.match(r"trial_\w*1\w*/checkpoint_", path) for path in place.files()):
        assert first.poll() is None, first.stdout.read()
        time.sleep(1)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=900)
    assert first.returncode == 130, said
    second = tune("two", "--resume", place.uri)
    said, _ = second.communicate(timeout=1200)
    assert second.returncode == 0, said
    content = json.loads(place.below("results.json").read())
    assert [trial["iterations"] for trial in content["trials"]] == [ITERATIONS] * 2
    assert {"results.md", "sweep.svg", "sweep.json"} <= place.files().keys()
    assert not any((tmp_path / "two").rglob("checkpoint_*"))
    best = re.search(r"use it: proxmo eval (\S+)", said)[1]
    if kind == "s3":
        assert best.startswith(place.uri)
    played = subprocess.run(
        [sys.executable, "-m", "proxmo_rllib.cli", "eval", best, "max_turns=1"],
        capture_output=True, text=True, check=False, cwd=Path(tmp_path / "two"),
    )  # fmt: skip
    assert played.returncode == 0, played.stdout + played.stderr
