"""Folders that a run writes to: what cannot be used is said before anything starts, with the remedy."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
# Beside a file in memory others allocate too: Ray's objects, the C library's semaphores.
_SPARE = 16 << 20
_SOCKET_BYTES = 107  # of the path of a Unix socket
# Ray's own, below its temporary folder; the process id is this process's.
_RAY_SOCKET = "ray/session_2026-01-02_03-04-05_678901_{pid}/sockets/plasma_store"
# vLLM's, in the system's temporary folder.
_ENGINE_SOCKET = "proxmo_scratch_01234567/01234567-89ab-cdef-0123-456789abcdef"
_said: set[str] = set()


class FolderError(OSError):
    """A folder that cannot be used; says which, why, and the remedy."""


def make_folder(path: Path, purpose: str, remedy: str) -> Path:
    """Makes a folder if it is not there, and makes sure that it can be written to.

    Args:
        path: of the folder.
        purpose: what it is for: "the run's folder".
        remedy: how to name another: "say --run-dir".

    Raises:
        FolderError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell: root, or a file system that is mounted read-only.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        blocking = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
        why = f"{blocking} is a file" if blocking else error.strerror or repr(error)
        raise FolderError(f"{path} cannot be {purpose}: {why}; {remedy}.") from error
    return path


def check_ray_folder(environment: Mapping[str, str]) -> None:
    """Whether Ray and vLLM can use the temporary folder: writable, and short enough for sockets.

    Args:
        environment: of this process; RAY_TMPDIR and TMPDIR name the folder, which is /tmp otherwise.

    Raises:
        FolderError: it cannot be used.
    """
    system = environment.get("TMPDIR") or "/tmp"
    ray_s = environment.get("RAY_TMPDIR") or system
    name = "RAY_TMPDIR" if environment.get("RAY_TMPDIR") else "TMPDIR"
    sockets = {
        ("Ray", name, ray_s): _RAY_SOCKET.format(pid=os.getpid()),
        ("vLLM", "TMPDIR", system): _ENGINE_SOCKET,
    }
    for (whose, variable, folder), socket in sockets.items():
        length, rest = len(os.fsencode(folder)), len(socket) + 1
        if length + rest > _SOCKET_BYTES:
            raise FolderError(
                f"{variable}={folder}: its path has {length} bytes, too many for {whose}'s sockets below it, whose "
                f"paths may have {_SOCKET_BYTES} and add {rest}; set {variable} to one of at most "
                f"{_SOCKET_BYTES - rest} bytes, such as /tmp."
            )
        make_folder(Path(folder), f"{whose}'s temporary folder", f"set {variable} to one that can")


def folder_with_room(num_bytes: int, memory: Path = SHARED_MEMORY) -> Path:
    """Where to put a file that another process reads at once: in memory if there is room, else on disk.

    Args:
        num_bytes: of the file.
        memory: a folder whose files are in memory, where the system has one.

    Raises:
        FolderError: neither has room.
    """
    disk = Path(tempfile.gettempdir())
    reasons = []
    for folder in (memory, disk):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        if free >= num_bytes + _SPARE and os.access(folder, os.W_OK):
            if folder == disk and reasons:
                _say_once(f"Weights go through {disk} on disk, which is slower: {reasons[0]}.")
            return folder
        reasons.append(f"{folder} has {free / 2**20:.0f} MiB free for a file of {num_bytes / 2**20:.0f} MiB")
    raise FolderError(
        f"There is no room for the weights: {'; '.join(reasons)}. Free some, or set TMPDIR to a larger disk."
    )


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        logger.warning("%s In a container, --shm-size gives it more memory.", text)
