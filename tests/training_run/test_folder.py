"""The folder of a run: what a kill leaves behind can be gone on with."""

from __future__ import annotations

import json

import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.training_run import RunFolder
from proxmo_rllib.training_run.folder import checkpoint_of, readable_config


def save(folder, iteration, keep=3):
    def write(path):
        from pathlib import Path

        Path(path).mkdir()
        (Path(path) / "rllib_checkpoint.json").write_text(str(iteration))

    return folder.save_checkpoint(iteration, write, keep)


def test_the_newest_checkpoints_are_kept_and_latest_points_to_the_last(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for iteration in (10, 20, 30, 40):
        save(folder, iteration, keep=2)
    assert [path.name for path in folder.whole_checkpoints()] == ["iteration_000030", "iteration_000040"]
    assert folder.latest_checkpoint().name == "iteration_000040"


def test_a_kill_while_saving_leaves_the_last_checkpoint_as_it_was(tmp_path):
    folder = RunFolder(tmp_path / "run")
    save(folder, 10, keep=1)

    def killed(path):
        from pathlib import Path

        Path(path).mkdir()
        (Path(path) / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.save_checkpoint(20, killed, keep=1)
    assert RunFolder(tmp_path / "run").latest_checkpoint().name == "iteration_000010"
    save(folder, 20, keep=1)  # what was left over does not stand in the way
    assert [path.name for path in folder.whole_checkpoints()] == ["iteration_000020"]


def test_an_iteration_that_is_played_again_replaces_its_checkpoint(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = save(folder, 10)
    (first / "old").write_text("x")
    second = save(folder, 10)
    assert first == second
    assert not (second / "old").exists()


def test_a_resumed_run_forgets_what_it_plays_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for iteration in range(4):
        folder.add_metrics({"iteration": float(iteration), "x": None})
    folder.episodes.write_text('{"iteration": 2}\n{"iteration": 3}\n{"iteration": 3, "tur')  # killed while writing
    folder.forget_after(2)
    assert [json.loads(line)["iteration"] for line in folder.metrics.read_text().splitlines()] == [0, 1, 2]
    assert folder.episodes.read_text() == '{"iteration": 2}\n'


def test_every_recorded_episode_is_handed_out_once(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert list(folder.new_episodes()) == []
    with folder.episodes.open("a") as file:
        file.write('{"episode": "ä"}\n{"episode": "b"}\n{"episo')
    assert [episode["episode"] for episode in folder.new_episodes()] == ["ä", "b"]
    with folder.episodes.open("a") as file:
        file.write('de": "c"}\n')
    assert [episode["episode"] for episode in folder.new_episodes()] == ["c"]


def test_a_run_is_found_from_its_folder_and_from_a_checkpoint_in_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_json("run.json", {"settings": {"lr": "1"}})
    saved = save(folder, 10)
    for path in (folder.path, saved, folder.checkpoints / "latest"):
        assert RunFolder.of(path).path == folder.path
        assert checkpoint_of(path) == saved


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.*run\.json"):
        RunFolder.of(tmp_path / "nothing")
    with pytest.raises(ValueError, match="neither a checkpoint"):
        checkpoint_of(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.write_json("run.json", {})
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        checkpoint_of(folder.path)


def test_the_config_is_written_for_people():
    config = (
        ProxMOConfig().environment("env_wrappers/ALFWorld-v0", env_config={"rooms": ("bathroom",)}).training(lr=0.5)
    )
    settings = json.loads(json.dumps(readable_config(config)))
    assert settings["lr"] == 0.5
    assert settings["env_config"] == {"rooms": ["bathroom"]}
    assert settings["group_size"] == 8  # ours are all there
    assert "framework_str" not in settings  # RLlib's only where they differ
    assert len(settings) < 100
