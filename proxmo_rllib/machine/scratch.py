"""Temporary folders that do not stay for ever when their process is killed.

Weights on their way to an engine lie in memory (/dev/shm) and may have many gigabytes. A process that is killed cannot
remove them. So each folder is locked by its process, the lock goes with the process, and whoever comes next removes the
folders that nobody locks. A process id in the name would not do: containers that share a folder count processes apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from proxmo_rllib.machine.folders import SHARED_MEMORY

_PREFIX = "proxmo_scratch_"


class Scratch:
    """A temporary folder of this process; ends with `remove`, with a `with` block, or with the process.

    Args:
        parent: the folder that it is made in; None for the system's temporary folder.

    Attributes:
        path: of it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        # Under its own name only when it is locked: another process would take it for one that was left behind.
        made = Path(tempfile.mkdtemp(prefix=".proxmo_", dir=parent))
        self._lock = os.open(made, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(_PREFIX + made.name.removeprefix(".proxmo_")))

    def remove(self) -> None:
        """Removes it with all that is in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def remove_abandoned(parents: Iterable[Path] | None = None) -> list[Path]:
    """Removes the folders of processes that are no more.

    Args:
        parents: folders in which they were made; None for those in memory and in the system's temporary folder.

    Returns:
        Those that were removed.
    """
    removed = []
    places = (SHARED_MEMORY, Path(tempfile.gettempdir())) if parents is None else parents
    for folder in [found for parent in places for found in parent.glob(f"{_PREFIX}*")]:
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                removed.append(folder)
            finally:
                os.close(lock)
    return removed
