"""`proxmo train`, `eval` and `view` with a run on storage."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxmo_rllib.checkpoint_format import check_whole, write_manifest
from proxmo_rllib.cli import main, stored, train
from proxmo_rllib.cli.policies import find_policy
from proxmo_rllib.cli.stored import here, stored_run
from proxmo_rllib.storage import Place, StorageError, open_place
from proxmo_rllib.storage.fetch import checkpoints_at
from proxmo_rllib.training_run.folder import RunFolder
from tuned_examples.quickstart_world import held_out_panel


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PROXMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PROXMO_RUNS", raising=False)
    return tmp_path / "cache"


def test_a_run_that_is_there_is_not_written_over(tmp_path, capsys):
    place = f"file://{tmp_path}/there"
    open_place(place).below("run.json").write(b"{}")
    assert main(["train", "quickstart", "--run-dir", place]) == 1
    said = capsys.readouterr().err
    assert f"--run-dir {place}: a run is there already; go on with it (--resume {place}" in said


@pytest.mark.parametrize("option", ["--run-dir", "--resume"])
def test_a_place_that_cannot_be_used_is_said_before_anything_starts(option, capsys):
    assert main(["train", "quickstart", option, "nowhere://b/x"]) == 1
    assert "proxmo train: nowhere://b/x: nothing here opens nowhere://" in capsys.readouterr().err


def test_runs_on_storage_get_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PROXMO_RUNS", f"file://{tmp_path}/there")
    arguments = train.parse(["quickstart"])
    found = stored_run(arguments)
    assert re.fullmatch(rf"file://{tmp_path}/there/quickstart-\d{{8}}-\d{{6}}", found.uri)
    assert arguments.run_dir == found.folder
    assert found.folder.name == found.uri.rpartition("/")[2]
    monkeypatch.setenv("PROXMO_RUNS", str(tmp_path / "folder"))
    assert stored_run(train.parse(["quickstart"])) is None


def test_a_run_of_a_folder_is_no_run_on_storage(tmp_path):
    """Also not one that was fetched from storage: its place is left alone."""
    run = RunFolder(tmp_path / "mine")
    run.write_json("run.json", {"stored_at": f"file://{tmp_path}/there"})
    assert stored_run(train.parse(["quickstart", "--resume", str(run.path)])) is None
    assert here(run.path) == run.path


def test_the_episodes_of_a_run_on_storage_are_seen(tmp_path, capsys):
    run = tmp_path / "there"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    episode = {
        "episode": "1", "iteration": 4, "task": "find the key", "task_type": "find", "status": "success",
        "return": 1.0, "error": "", "group": 0, "turns": [],
    }  # fmt: skip
    (run / "episodes.jsonl").write_text(json.dumps(episode) + "\n")
    assert main(["view", f"file://{run}"]) == 0
    assert "find the key" in capsys.readouterr().out
    assert main(["view", f"file://{tmp_path}/none"]) == 1
    assert "there is no run" in capsys.readouterr().err


def test_the_policy_of_a_checkpoint_on_storage_is_fetched_without_the_learners_state(tmp_path):
    checkpoint = tmp_path / "there" / "checkpoints" / "iteration_000004"
    (checkpoint / "policy").mkdir(parents=True)
    for name in ("rllib_checkpoint.json", "policy/config.json", "state.pkl"):
        (checkpoint / name).write_text("{}")
    write_manifest(checkpoint)
    (tmp_path / "there" / "run.json").write_text('{"file": "mine.py"}')
    for uri in (f"file://{tmp_path}/there", f"file://{checkpoint}"):
        policy = Path(find_policy(uri).pretrained)
        assert (policy / "config.json").is_file()
        assert not (policy.parent / "state.pkl").exists()


class PlayedAlgo:
    """In the place of Ray, engines and learner: it counts, and saves the count."""

    def __init__(self, config) -> None:
        self.config, self.iteration = config, 0

    def train(self) -> dict:
        self.iteration += 1
        return {"training_iteration": self.iteration, "env_runners": {"num_successes": 1, "num_episodes": 2}}

    def save_to_path(self, path: str) -> None:
        Path(path).mkdir(parents=True)
        for name in ("rllib_checkpoint.json", "count"):
            (Path(path) / name).write_text(str(self.iteration))
        write_manifest(Path(path))

    def restore_from_path(self, path: str) -> None:
        check_whole(Path(path))
        self.iteration = int((Path(path) / "count").read_text())

    def stop(self) -> None:
        """Nothing runs."""


@pytest.fixture
def played(monkeypatch) -> None:
    """`proxmo train` without Ray; its run, folder, storage and messages are real."""
    monkeypatch.setattr(train, "start_guarded", lambda *_: "nobody's machine")
    monkeypatch.setattr(train, "_shutdown", lambda: None)
    monkeypatch.setattr(
        "proxmo_rllib.monitoring.ray_metrics.Gauge", lambda *_, **__: SimpleNamespace(set=lambda *_, **__: 0)
    )
    monkeypatch.setattr("proxmo_rllib.config.ProxMOConfig.build_algo", lambda config: PlayedAlgo(config))
    monkeypatch.setattr(stored, "atexit", SimpleNamespace(register=lambda call: at_exit.append(call)))
    at_exit.clear()


at_exit: list = []


def trained(*words: object) -> int:
    """The exit status, after what happens when the process ends."""
    options = ("panel=none", "evaluation_interval=none", "--checkpoint-every=2", "--grace-period=0")
    status = main(["train", "quickstart", *options, *map(str, words)])
    while at_exit:
        at_exit.pop()()
    return status


def test_a_run_on_storage_ends_whole_there_and_goes_on_from_there(played, tmp_path, cache, quickstart_policy, capfd):
    uri = f"file://{tmp_path}/there/mine"
    policy = f"pretrained={quickstart_policy}"
    assert trained(policy, "--run-dir", uri, "--iterations", 3) == 0
    said = capfd.readouterr().out
    assert f"run folder: {uri}" in said
    assert f"the run is at {uri}" in said
    place = open_place(uri)
    assert checkpoints_at(place) == ["iteration_000003", "iteration_000002"]
    assert json.loads(place.below("summary.json").read())["iterations"] == 3
    assert json.loads(place.below("run.json").read())["stored_at"] == uri
    assert list((cache / "runs").iterdir()) == []
    assert trained("--run-dir", uri, "--auto-resume", "--iterations", 5) == 0
    assert checkpoints_at(place)[0] == "iteration_000005"
    assert trained("--resume", f"{uri}/checkpoints/iteration_000003", "--iterations", 4) == 0
    assert checkpoints_at(place)[0] == "iteration_000004"
    rows = [json.loads(line)["iteration"] for line in place.below("metrics.jsonl").read().splitlines()]
    assert rows == [1, 2, 3, 4]
    assert list((cache / "runs").iterdir()) == []


def test_a_storage_that_fails_at_the_end_leaves_the_run_here_and_says_how_to_go_on(
    played, tmp_path, cache, quickstart_policy, capfd, monkeypatch
):
    uri = f"file://{tmp_path}/there/mine"
    write = Place._write

    def full(place: Place, chunks) -> None:
        if "iteration_000002" in place.path:
            raise StorageError(f"{place.uri}: it is full.")
        write(place, chunks)

    monkeypatch.setattr(Place, "_write", full)
    assert trained(f"pretrained={quickstart_policy}", "--run-dir", uri, "--iterations", 2) == 1
    said = capfd.readouterr().out
    (folder,) = (cache / "runs").glob("*/mine")
    assert f"the run is not all at {uri}, but in {folder}: {uri}/checkpoints/iteration_000002/" in said
    assert f"go on from iteration_000002 with: proxmo train quickstart --resume {folder}" in said
    monkeypatch.setattr(Place, "_write", write)
    assert trained("--resume", folder, "--iterations", 3) == 0
    assert checkpoints_at(open_place(uri)) == ["iteration_000003", "iteration_000002"]
    assert list((cache / "runs").iterdir()) == []


SETTINGS = (
    *("panel=none", "evaluation_interval=none", "num_groups=2", "group_size=2", "max_turns=3", "max_num_seqs=4"),
    *("num_minibatches=1", "num_env_runners=1", "num_engines=1", "engine=transformers"),
)


def proxmo(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxmo_rllib.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, **options)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.others)])
def test_a_run_on_storage_is_killed_gone_on_with_and_evaluated(
    kind, request, tmp_path, cache, repository, quickstart_policy
):
    uri = f"file://{tmp_path}/there/mine" if kind == "file" else f"{request.getfixturevalue('s3')}/mine"
    example = str(repository / "tuned_examples" / "quickstart.py")
    begin = (
        "train",
        example,
        f"pretrained={quickstart_policy}",
        *SETTINGS,
        "--checkpoint-every",
        "1",
        "--run-dir",
        uri,
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "proxmo_rllib.cli", *begin, "--iterations", "50"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    place = open_place(uri)
    while len(checkpoints_at(place)) < 2:
        assert running.poll() is None, running.stdout.read()
    running.send_signal(signal.SIGKILL)
    running.wait()
    cache.rename(tmp_path / "lost")  # as on another machine; processes of the run may still write there
    again = proxmo(*begin, "--auto-resume", "--iterations", "4")
    if again.returncode == 0:
        assert f"the run is at {uri}" in again.stdout
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"fetching {uri}/checkpoints/iteration_00000" in again.stderr
    assert checkpoints_at(place)[0] >= "iteration_000004"
    rows = [json.loads(line)["iteration"] for line in place.below("metrics.jsonl").read().splitlines()]
    assert rows == sorted(set(rows))
    assert json.loads(place.below("summary.json").read())["iterations"] == rows[-1]
    assert not list((cache / "runs").iterdir())  # all of it is at its place
    on = proxmo("train", example, "--resume", uri, "--iterations", str(rows[-1] + 1))
    assert on.returncode == 0, on.stdout + on.stderr
    assert checkpoints_at(place)[0] == f"iteration_{rows[-1] + 1:06d}"
    seen = proxmo("view", uri)
    assert f"iteration {rows[-1] + 1}" in seen.stdout
    panel = tmp_path / "panel.json"
    panel.write_text(held_out_panel(2).to_json())
    for word in (uri, f"{uri}/checkpoints/iteration_{rows[-1]:06d}"):
        played = proxmo("eval", word, "--panel", str(panel), "max_turns=2")
        assert played.returncode == 0, played.stdout + played.stderr
        assert "policy/model.safetensors" not in played.stderr
    assert not list((cache / "runs").iterdir())  # copies are removed, too
