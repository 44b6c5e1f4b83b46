"""`proxmo plan`, and the plan in a dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxmo_rllib.cli.plan import main
from proxmo_rllib.cli.train import main as train

RECIPE = "tuned_examples/alfworld_qwen2_5_1_5b.py"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_plan_of_the_recipe_needs_nothing_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([RECIPE, "--gpu-memory", "80", "max_tokens_per_microbatch=4096", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"]
    assert plan["weights"] == 1_543_714_304
    assert plan["gpus"] == 2
    assert {(p["who"], p["place"]) for p in plan["processes"]} == {
        (w, p) for w in ("engine", "learner") for p in ("GPU", "host")
    }
    assert plan["seconds"]["iteration"] > 0


def test_what_does_not_fit_is_refused_with_what_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([RECIPE, "--gpu-memory", "24", "--gpus", "2", "max_tokens_per_microbatch=4096"]) == 1
    text = said(capsys)
    assert "refused: learner: " in text
    assert "this does: " in text
    assert "an iteration takes about" in text


def test_this_machines_memory_is_no_limit_for_a_run_whose_gpus_are_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("proxmo_rllib.learner.microbatch_size.memory_of_machine", lambda: 2 * 2**30)
    model = ["--model-config", "asset:alfworld-tiny"]
    for count, here in ((0, False), (1, False), (2, True)):
        monkeypatch.setattr("proxmo_rllib.planning.this_machines_gpus", lambda count=count: (count, 80))
        assert main([RECIPE, "max_tokens_per_microbatch=4096", *model]) == int(here)
        assert ("of 2.0 GiB on the host" in said(capsys)) == here
    assert main(["quickstart", *model]) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["quickstart", "max_model_len=0"], "max_model_len=0"),
        (["quickstart", 'lora={"rank": 0}'], "rank=0"),
        (["quickstart", 'lora={"rank": 4, "target_modules": ["qproj"]}'], "qproj"),
        (["quickstart", "--model-config", "no-such/model"], "no-such/model"),
        (["nowhere.py"], "nowhere.py"),
    ],
)
def test_bad_input_is_named(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert says in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_refuses_what_cannot_fit(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "example.py"
    path.write_text(
        "from proxmo_rllib import ProxMOConfig\n"
        "config = ProxMOConfig().environment('env_wrappers/ALFWorld-v0', env_config={'rooms': ('bathroom',)})"
        f".policy(pretrained={str(tiny_policy)!r}).training(max_tokens_per_microbatch=2048)\n"
    )
    assert train([str(path), "--dry-run"]) == 0
    text = said(capsys)
    assert "plan ok engine: " in text
    assert "AdamW's moments" in text
    monkeypatch.setattr("proxmo_rllib.learner.microbatch_size.memory_of_machine", lambda: 2 * 2**30)
    assert train([str(path), "--dry-run"]) == 1
    assert "plan refused all processes" in said(capsys)
