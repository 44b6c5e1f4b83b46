"""`proxmo eval` with several players: who plays what, in one folder, which a kill leaves in order."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.panels import Panel
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.checkpoint_format import write_manifest
from proxmo_rllib.cli import eval as evaluate
from proxmo_rllib.cli.contestants import find_contestants
from proxmo_rllib.cli.eval_policies import check_policies
from proxmo_rllib.evaluation import ledger
from proxmo_rllib.evaluation.entries import EPISODES
from proxmo_rllib.evaluation.ledger import Ledger
from proxmo_rllib.evaluation.names import parse_player
from proxmo_rllib.settings_file import write_settings
from tests.evaluation.doors import NoExpertEnv, doors_panel

ENV = "env_wrappers/ALFWorld-v0"
REPOSITORY = Path(__file__).resolve().parents[2]


def write_panel(place: Path, panel: Panel | None = None, name: str = "panel.json") -> str:
    path = place / name
    path.write_text((panel or doors_panel()).to_json(), encoding="utf-8")
    return str(path)


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def checkpoint(folder: Path, policy: Path, panel: Panel, env: str = ENV, **env_config: Any) -> Path:
    """What a run leaves of a policy that was trained in an environment."""
    shutil.copytree(policy, folder / "policy")
    (folder / "rllib_checkpoint.json").write_text("{}")
    config = (
        ProxMOConfig().environment(env, env_config=env_config).env_runners(max_turns=3).inference(engine="transformers")
    )
    write_settings(config.evaluation(panel=panel), folder / "settings.json")
    write_manifest(folder)
    return folder


def panel_of(*tasks: int, name: str = "few") -> Panel:
    names = tuple(f"generated/valid_unseen/{number:06d}" for number in tasks)
    return Panel(name, 1, ENV, {"rooms": "bathroom"}, names)


def command_line(*words: str) -> tuple[argparse.Namespace, list[Any]]:
    arguments = evaluate.parse([*words, "--trials", "2"])
    return arguments, [parse_player(word) for word in arguments.words]


def test_two_players_are_compared_on_the_same_tasks(tmp_path, capsys):
    output = tmp_path / "results"
    words = ["expert", "random", "--panel", write_panel(tmp_path), "--repeats", "2", "--output", str(output)]
    assert evaluate.main(words) == 0
    said = capsys.readouterr().out
    assert "expert - random: +" in said
    assert "pass@2" in said
    assert f"written: {output / 'report.html'}" in said
    (pair,) = results_of(output)["comparisons"]
    assert pair["players"] == ["expert", "random"]
    assert pair["better"][1] == 0
    assert evaluate.main([str(output)]) == 0
    again = capsys.readouterr().out
    assert said.startswith(again)  # a folder stands for its players


def test_players_are_added_to_a_folder_and_folders_are_compared(tmp_path, capsys):
    panel, one, other = write_panel(tmp_path), tmp_path / "one", tmp_path / "other"
    assert evaluate.main(["expert", "--panel", panel, "--output", str(one)]) == 0
    before = (one / EPISODES).read_bytes()
    assert evaluate.main(["random", "--output", str(one)]) == 0  # the panel is the folder's
    assert (one / EPISODES).read_bytes().startswith(before)
    assert [player["name"] for player in results_of(one)["players"]] == ["expert", "random"]
    assert evaluate.main(["random", "--panel", panel, "max_turns=2", "--output", str(other)]) == 0
    capsys.readouterr()
    assert evaluate.main([str(one), str(other)]) == 0
    said = capsys.readouterr().out
    assert "random - random (other)" in said
    assert "Not all have the same number of turns" in said
    both = tmp_path / "both"
    assert evaluate.main([str(one), str(other), "--output", str(both)]) == 0
    assert len(results_of(both)["comparisons"]) == 3
    assert len(Ledger.read(both).entries["random (other)"].played) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["exprt", "--panel", "{panel}"], "did you mean 'expert'"),
        (["expert", "max_turns=1", "--output", "{results}"], "another 'expert': max_turns was 30 and is 1"),
        (["expert", "--panel", "{other}", "--output", "{results}"], "and this is panel doors@"),
        (["{results}", "expert", "max_turns=1"], "results has episodes of another 'expert': max_turns was 30 and is 1"),
        (["{results}", "--repeats", "2"], "--repeats: nobody plays"),
        (["{results}", "max_turns=3"], "max_turns=: nobody plays"),
        (["expert", "--panel", "{panel}", "--trials", "2"], "--trials 2: nobody tries again"),
        (["{results}", "{elsewhere}"], "they cannot be compared"),
        (["{empty}", "--panel", "{panel}"], "neither a run, a checkpoint, a model's folder nor that of an evaluation"),
        (["expert", "--panel", "{panel}", "--output", "{file}"], "is a file; name another --output"),
        (["expert", "--panel", "{hopeless}"], "NoExpertEnv has none"),
        (["expert", "--panel", "{stale}"], "its tasks or arguments have changed"),
        (["{model}@react", "--panel", "{panel}"], "max_response_tokens=16.*say max_response_tokens=128"),
        (["{model}@react", "--panel", "{panel}", "max_response_tokens=128", "max_turns=1"], "2 examples are asked for"),
        (["{model}@react", "--panel", "{hopeless}", "max_response_tokens=128"], "has no expert.*@react:0"),
        (
            ["{model}@reflexion", "--panel", "{panel}", "max_response_tokens=128", "max_model_len=600"],
            "begins a task with up to .*2 examples included, and notes .* may add .*room for 472; raise max_model_len",
        ),
        (
            ["no/such-model@react", "--panel", "{panel}", "max_response_tokens=64"],
            "'no/such-model' cannot be loaded: .*the hub",
        ),
        (["{model}"], "Nothing says how .* plays: give --config"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words, says, tmp_path, capsys, tiny_policy, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    places = {
        "panel": write_panel(tmp_path),
        "other": write_panel(tmp_path, doors_panel(tasks=5), "other.json"),
        "hopeless": write_panel(tmp_path, doors_panel(NoExpertEnv), "hopeless.json"),
        "results": str(tmp_path / "results"),
        "elsewhere": str(tmp_path / "elsewhere"),
        "empty": str(tmp_path / "empty"),
        "file": str(tmp_path / "file"),
        "stale": str(tmp_path / "stale.json"),
        "model": str(tiny_policy),
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "stale.json").write_text((tmp_path / "panel.json").read_text().replace("test/3", "test/9"))
    assert evaluate.main(["expert", "--panel", places["panel"], "--output", places["results"]]) == 0
    assert evaluate.main(["expert", "--panel", places["other"], "--output", places["elsewhere"]]) == 0
    capsys.readouterr()
    assert evaluate.main([word.format(**places) for word in words]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(says, line), line


def test_checkpoints_bring_their_settings_and_lend_them(tiny_policy, tmp_path):
    panel = panel_of(0, 1)
    trained = checkpoint(tmp_path / "trained", tiny_policy, panel, rooms="bathroom")
    model = str(tiny_policy)
    found = find_contestants(
        *command_line(str(trained), model, "random", f"{model}@react:0", "max_response_tokens=64"), None
    )
    assert found[0] == panel
    contestants = {each.player.word: each for each in found[1]}
    assert {each.config.max_turns for each in contestants.values()} == {3}
    identities = [contestants[word].identity for word in (str(trained), model, f"{model}@react:0")]
    assert len({identity["weights"] for identity in identities}) == 1  # the same file
    assert identities[2]["template"].startswith("react-0-")
    assert identities[2]["response_style"] == "tagged"
    assert "weights" not in contestants["random"].identity


def test_a_prompted_model_needs_no_more_than_a_panel(tmp_path):
    """The shipped model is too small to be prompted well, but all that can be checked is right."""
    words = ["asset:alfworld-tiny@react:1", "--panel", write_panel(tmp_path, panel_of(0, 1)), "engine=transformers"]
    _, (contestant,) = find_contestants(*command_line(*words, "max_response_tokens=64", "max_model_len=2048"), None)
    check_policies([contestant], None)
    assert contestant.config.template.name.startswith("react-1-")


def test_other_weights_are_another_player(tiny_policy, tmp_path):
    from proxmo_rllib.evaluation.identity import fingerprint

    other = Path(shutil.copytree(tiny_policy, tmp_path / "other"))
    assert fingerprint(str(other)) == fingerprint(str(tiny_policy))
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert fingerprint(str(other)) != fingerprint(str(tiny_policy))


def test_checkpoints_of_different_panels_are_asked_which(tiny_policy, tmp_path):
    one = checkpoint(tmp_path / "one", tiny_policy, panel_of(0, 1), rooms="bathroom")
    two = checkpoint(tmp_path / "two", tiny_policy, panel_of(0, 2, name="others"), rooms="bathroom")
    with pytest.raises(ValueError, match=r"one comes with panel few@.*two with others@.*say with --panel"):
        find_contestants(*command_line(str(one), str(two)), None)
    panel, both = find_contestants(
        *command_line(str(one), str(two), "--panel", write_panel(tmp_path, panel_of(3))), None
    )
    assert panel == panel_of(3)
    assert [each.config.panel for each in both] == [panel, panel]


def test_checkpoints_of_different_environments_are_not_compared(tiny_policy, tmp_path):
    one = checkpoint(tmp_path / "one", tiny_policy, panel_of(0, 1), rooms="bathroom")
    two = checkpoint(tmp_path / "two", tiny_policy, panel_of(0, 1), env="env_wrappers/TextCraft-v0")
    with pytest.raises(ValueError, match=r"two plays env_wrappers/TextCraft-v0, and panel few is of .*ALFWorld"):
        find_contestants(*command_line(str(one), str(two)), None)


def typed(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, "-m", "proxmo_rllib.cli", "eval", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_a_child(words: list[str], said: Path) -> None:
    """The command in a process that a signal ends once its first episodes are on the disk, however slow the sender."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
    flush = Ledger.flush

    def flush_and_wait(self: Ledger) -> None:
        Ledger.flush = flush  # the last one, on the way out, does not wait
        flush(self)
        signal.pause()

    Ledger.flush = flush_and_wait
    ledger._WRITE_EVERY_S = 0.1  # all 400 episodes take a second or two
    with said.open("w") as sys.stderr:
        status = evaluate.main(words)
    sys.exit(status)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_evaluation_goes_on(how, tmp_path, capsys):
    results, said = tmp_path / "results", tmp_path / "said"
    words = ["random", "--panel", "alfworld-generated-unseen-200", "--repeats", "2", "max_turns=12"]
    words += ["--output", str(results)]
    # Forked: it has imported everything already.
    process = multiprocessing.get_context("fork").Process(target=in_a_child, args=(words, said))
    process.start()
    deadline = time.monotonic() + 100
    while not (results / EPISODES).exists() or not (results / EPISODES).stat().st_size:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join(60)
    if how == signal.SIGINT:
        assert process.exitcode == 130
        assert "the same command goes on" in said.read_text()
    before = Ledger.read(results).entries["random"].played
    assert 0 < len(before) < 400
    assert evaluate.main(words) == 0
    after = Ledger.read(results).entries["random"].played
    assert len(after) == 400
    assert {key: after[key] for key in before} == before  # nothing of it was played again
    assert results_of(results)["players"][0]["success"]["all"]["episodes"] == 400
    assert "tasks, success" not in capsys.readouterr().out  # no line of progress where there is no terminal


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_a_model_and_scripts_through_a_kill(tmp_path):
    """The quickstart's start against an expert and a random player, killed while the policy plays, and resumed."""
    words = ["asset:alfworld-tiny", "asset:alfworld-tiny@reflexion:0", "expert", "random"]
    words += ["--config", "quickstart", "--trials", "2", "max_response_tokens=32", "--output", "results"]
    words += ["max_model_len=1024"]
    results = tmp_path / "results"
    process = typed(tmp_path, *words)
    # The scripts come first; then the policy.
    deadline = time.monotonic() + 200
    while b"alfworld-tiny" not in _unpacked(results / EPISODES):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    played = {name: len(entry.played) for name, entry in Ledger.read(results).entries.items()}
    assert played["expert"] == played["random"] == 128
    before = (results / EPISODES).stat().st_size
    process = typed(tmp_path, *words)
    shown, said = process.communicate(timeout=280)
    assert (process.returncode, said) == (0, ""), said
    assert "expert has played all of it already" in shown
    assert (results / EPISODES).stat().st_size > before
    found = results_of(results)
    rates = {player["name"]: player["success"]["all"]["rate"] for player in found["players"]}
    assert rates["expert"] == 1.0
    assert 0.4 < rates["asset:alfworld-tiny"] < 0.62
    assert rates["random"] < 0.1
    assert len(found["comparisons"]) == 6
    prompted = next(player for player in found["players"] if player["trials"])
    assert prompted["prompt_tokens"]["all"]["mean"] > 500


def _unpacked(path: Path) -> bytes:
    from proxmo_rllib.record_file import record_lines

    return b"".join(record_lines(path)) if path.exists() else b""
