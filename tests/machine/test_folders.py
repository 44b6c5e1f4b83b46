"""Folders that cannot be used are named before anything starts, and memory is used only where it has room."""

from __future__ import annotations

import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from proxmo_rllib.machine import folders
from proxmo_rllib.machine.folders import FolderError, check_ray_folder, folder_with_room, make_folder

Usage = namedtuple("Usage", "total used free")
MIB = 1 << 20


@pytest.fixture
def free(monkeypatch, tmp_path):
    """Sets the free bytes of a small memory and of the disk; returns both folders."""
    memory, disk = tmp_path / "shm", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: str(disk))
    monkeypatch.setattr(folders, "_said", set())

    def set_free(in_memory: int, on_disk: int) -> tuple[Path, Path]:
        sizes = {memory: in_memory, disk: on_disk}
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(sizes[path], 0, sizes[path]))
        return memory, disk

    return set_free


def test_weights_go_to_memory_where_there_is_room(free):
    memory, _ = free(500 * MIB, 500 * MIB)
    assert folder_with_room(100 * MIB, memory) == memory


def test_weights_go_to_disk_where_memory_is_as_small_as_dockers_and_that_is_said_once(free, caplog):
    memory, disk = free(64 * MIB, 500 * MIB)
    with caplog.at_level(logging.WARNING):
        assert folder_with_room(100 * MIB, memory) == disk
        assert folder_with_room(100 * MIB, memory) == disk
    assert len(caplog.records) == 1
    assert "64 MiB free for a file of 100 MiB" in caplog.text
    assert "--shm-size" in caplog.text


def test_no_room_anywhere_is_an_error_with_both_figures(free):
    memory, _ = free(64 * MIB, 50 * MIB)
    with pytest.raises(FolderError, match=r"64 MiB free.*50 MiB free.*TMPDIR"):
        folder_with_room(100 * MIB, memory)


def test_a_system_without_shared_memory_uses_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_said", set())
    assert folder_with_room(MIB, tmp_path / "none") == Path(folders.tempfile.gettempdir())


def test_an_engine_asks_for_room_for_its_weights(monkeypatch, tmp_path):
    import asyncio

    from proxmo_rllib.inference import actor as module
    from proxmo_rllib.inference.engine import EngineConfig
    from proxmo_rllib.machine import scratch

    asked = []
    monkeypatch.setattr(scratch, "folder_with_room", lambda size, memory: asked.append(size) or tmp_path)
    monkeypatch.setattr(module, "manifest_of_blob", lambda blob: {})

    class Engine:
        version = 3

        async def load_weights(self, path, version):
            assert path.parent.parent == tmp_path
            assert np.fromfile(path, np.uint8).tolist() == [0] * 8

    served = module.InferenceActor.__new__(module.InferenceActor)
    served._engine = Engine()
    served._config = EngineConfig("model")
    assert asyncio.run(served.update_weights("name", 3, np.zeros(8, np.uint8))) == 3
    assert asked == [8]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(FolderError, match=r"runs is a file; say --run-dir"):
        make_folder(tmp_path / "runs" / "mine", "the run's folder", "say --run-dir")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(**options):
        raise OSError(30, "Read-only file system")  # root is refused nothing else

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", refuse)
    with pytest.raises(FolderError, match=r"cannot be the run's folder: Read-only file system; say --run-dir"):
        make_folder(tmp_path, "the run's folder", "say --run-dir")


@pytest.mark.parametrize(("name", "whose"), [("TMPDIR", "Ray"), ("RAY_TMPDIR", "Ray")])
def test_a_path_too_long_for_sockets_is_refused_with_its_length(name, whose, tmp_path):
    folder = "/tmp/" + "x" * 60
    with pytest.raises(FolderError, match=rf"{name}={folder}: its path has 65 bytes.*{whose}'s sockets.*set {name} to"):
        check_ray_folder({name: folder})
    assert not os.path.exists(folder)


def test_vllms_sockets_count_too():
    folder = "/tmp/" + "x" * 80
    with pytest.raises(FolderError, match="vLLM's sockets"):
        check_ray_folder({"RAY_TMPDIR": "/tmp", "TMPDIR": folder})
    check_ray_folder({})
    check_ray_folder({"RAY_TMPDIR": "/tmp/ray-12345"})


def test_the_longest_path_that_is_let_through_is_one_that_ray_takes():
    """Against Ray's own words for its sockets."""
    from ray._private.utils import validate_socket_filepath

    process = os.getpid()
    socket = f"ray/session_2026-01-02_03-04-05_678901_{process}/sockets/plasma_store"
    longest = "/tmp/" + "x" * (107 - len(socket) - 1 - len("/tmp/"))
    validate_socket_filepath(f"{longest}/{socket}")
    try:
        check_ray_folder({"RAY_TMPDIR": longest, "TMPDIR": "/tmp"})
    finally:
        shutil.rmtree(longest, ignore_errors=True)
    with pytest.raises(FolderError):
        check_ray_folder({"RAY_TMPDIR": f"{longest}x", "TMPDIR": "/tmp"})
