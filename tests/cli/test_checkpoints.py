"""A checkpoint of a real run, copied away from it and robbed of its pickles, is evaluated and played by itself."""

from __future__ import annotations

import json
import shutil

import pytest

from proxmo_rllib.cli import main

EXAMPLE = """
from env_wrappers.panels import Panel
from proxmo_rllib import ProxMOConfig, StopCriteria

stop = StopCriteria(iterations=1)
ENV = "env_wrappers/ALFWorld-v0"
tasks = ("generated/valid_unseen/000000", "generated/valid_unseen/000001")
config = (
    ProxMOConfig()
    .environment(ENV, env_config={"rooms": ("bathroom",), "max_receptacles": 6})
    .policy(pretrained="asset:alfworld-tiny", lora=LORA)
    .inference(engine="transformers")
    .env_runners(max_turns=2)
    .training(group_size=2, num_groups=2)
    .evaluation(panel=Panel("two", 1, ENV, {"rooms": "bathroom"}, tasks))
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_a_checkpoint_is_evaluated_and_played_by_itself_and_resuming_says_that_it_trusts(
    tmp_path, capfd, monkeypatch, lora
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    example, folder = tmp_path / "example.py", tmp_path / "run"
    example.write_text(EXAMPLE.replace("LORA", repr(lora)))
    assert main(["train", str(example), "--run-dir", str(folder)]) == 0, capfd.readouterr()
    trained = capfd.readouterr().out
    assert "trusts" not in trained
    away = shutil.copytree((folder / "checkpoints" / "latest").resolve(), tmp_path / "away")
    for file in away.rglob("*.pkl"):
        file.unlink()
    output = tmp_path / "results"
    assert main(["eval", str(away), "--output", str(output)]) == 0, capfd.readouterr()
    result = json.loads((output / "results.json").read_text())
    assert result["panel"]["name"] == "two"
    assert result["players"][0]["success"]["all"]["episodes"] == 2
    words = ["play", "env_wrappers/ALFWorld-v0", "--agent", str(away), "--max-turns", "1", "env_config.rooms=bathroom"]
    assert main(words) == 0, capfd.readouterr()
    capfd.readouterr()
    assert main(["train", str(example), "--resume", str(folder), "--iterations", "2"]) == 0, capfd.readouterr()
    assert "resuming trusts iteration_000001" in capfd.readouterr().out
