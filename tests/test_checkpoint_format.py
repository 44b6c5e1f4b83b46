"""`Algorithm.save_to_path` in a plain script or under Tune: a checkpoint is whole, or it is not there."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.rllib.algorithms.algorithm import Algorithm

from proxmo_rllib import ProxMO, ProxMOConfig
from proxmo_rllib.checkpoint_format import CheckpointError, check_whole
from proxmo_rllib.machine.disk import DiskError


@pytest.fixture
def algorithm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """RLlib's part writes a file; the disk is full when the policy is to be written."""

    def rllibs_part(self: Any, path: str, **kwargs: Any) -> str:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "algorithm_state.pkl").write_bytes(b"state")
        return path

    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Algorithm, "save_to_path", rllibs_part)
    algorithm = object.__new__(ProxMO)
    algorithm._learners = SimpleNamespace(
        attempt=lambda call: call(), save_shards=lambda folder: None, export_policy=full
    )
    algorithm.config = ProxMOConfig()
    return algorithm


@pytest.mark.parametrize("made_before", [False, True], ids=["new", "made by Tune"])
def test_a_save_that_a_full_disk_breaks_leaves_nothing_and_says_why(algorithm: Any, tmp_path: Path, made_before: bool):
    target = tmp_path / "checkpoint"
    if made_before:
        target.mkdir()
    with pytest.raises(DiskError, match=r"checkpoint could not be written: No space left.*MiB are free"):
        algorithm.save_to_path(str(target))
    assert not target.exists()


def test_a_save_into_a_folder_with_other_things_keeps_them_and_is_no_checkpoint(algorithm: Any, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DiskError):
        algorithm.save_to_path(str(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        check_whole(tmp_path)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        algorithm.restore_from_path(str(tmp_path))


def test_a_place_that_is_no_folder_of_this_machine_is_refused(algorithm: Any):
    with pytest.raises(ValueError, match="storage_path"):
        algorithm.save_to_path("s3://bucket/run")
