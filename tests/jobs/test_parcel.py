"""What is sent with a job."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env import packaging

from proxmo_rllib.jobs import parcel


def test_environments_runs_and_history_stay_at_home(tmp_path):
    sent = parcel.runtime_env(tmp_path, {"A": "1"})
    assert sent["working_dir"] == str(tmp_path)
    assert {".git", ".venv*", "/runs"} <= set(sent["excludes"])
    assert sent["env_vars"]["A"] == "1"
    assert int(sent["env_vars"][parcel.STOP_WAIT]) > 30  # a training's period of grace
    assert "working_dir" not in parcel.runtime_env(None, {})


def test_a_folder_that_ray_would_refuse_is_named_with_its_largest_files(tmp_path, monkeypatch):
    (tmp_path / "small.py").write_text("x = 1")
    (tmp_path / ".gitignore").write_text("ignored.bin\n")
    noise = bytes(range(256)) * 40
    for name in ("ignored.bin", "runs/checkpoint", "node_modules/.git/object"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(noise)
    whole = parcel.check_size(tmp_path)
    (tmp_path / "data.bin").write_bytes(noise)
    monkeypatch.setattr(packaging, "GCS_STORAGE_MAX_SIZE", whole + 100)
    with pytest.raises(ValueError, match=r"the largest are data\.bin \(.*\.rayignore"):
        parcel.check_size(tmp_path)
    (tmp_path / ".rayignore").write_text("data.bin\n")
    monkeypatch.setattr(packaging, "GCS_STORAGE_MAX_SIZE", whole + 200)
    parcel.check_size(tmp_path)


def test_nothing_that_is_excluded_is_in_the_package(tmp_path):
    for name in (".git/x", ".venv/x", "a/__pycache__/x.pyc", "runs/x", "wandb/x", "a/runs/kept.py"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    package = tmp_path / "package.zip"
    packaging.create_package(
        str(tmp_path / "in"), Path(package), include_gitignore=True, excludes=list(parcel.EXCLUDES)
    )
    names = [name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")]
    assert names == ["a/runs/kept.py"]
