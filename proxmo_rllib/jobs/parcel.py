"""What is sent to the cluster with a job: a folder without what only this machine needs, and not too much of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxmo_rllib.machine.disk import in_mib

# Not sent to the cluster: Ray refuses a working directory over 500 MiB. Patterns are those of .gitignore.
EXCLUDES = (".git", ".venv*", "__pycache__", ".*_cache", "/build", "/dist", "/docs", "/runs", "/tests", "/wandb")
_NAMED = 3
# Ray kills a job three seconds after it told it to stop, unless this variable of the job says more. A training needs
# its period of grace (`--grace-period`, 30 s), and the time to end Ray's actors.
STOP_WAIT, STOP_WAIT_S = "RAY_JOB_STOP_WAIT_TIME_S", "120"


def runtime_env(folder: Path | None, variables: Mapping[str, str]) -> dict[str, Any]:
    """Ray's description of what the job needs: the folder to copy, and environment variables."""
    environment: dict[str, Any] = {"env_vars": {STOP_WAIT: STOP_WAIT_S} | dict(variables)}
    if folder is not None:
        environment |= {"working_dir": str(folder), "excludes": list(EXCLUDES)}
    return environment


def check_size(folder: Path) -> int:
    """Whether Ray would take a folder, packed as it packs it.

    Args:
        folder: to be sent; what EXCLUDES, .gitignore and .rayignore name is left out.

    Returns:
        Bytes of the package.

    Raises:
        ValueError: it is too large; names the largest files.
    """
    from ray._private.runtime_env import packaging

    with tempfile.TemporaryDirectory() as there:
        package = Path(there) / "package.zip"
        packaging.create_package(str(folder), package, include_gitignore=True, excludes=list(EXCLUDES))
        size = package.stat().st_size
        limit: int = packaging.GCS_STORAGE_MAX_SIZE
        if size < limit:
            return size
        raise ValueError(
            f"{folder}: what would be sent to the cluster takes {in_mib(size)}, and Ray takes less than "
            f"{in_mib(limit)}; the largest are {_largest(package)}. Name what the job does not need in .rayignore or "
            ".gitignore there, send another --folder, or put data where the nodes see it."
        )


def _largest(package: Path) -> str:
    import zipfile

    with zipfile.ZipFile(package) as content:
        found = sorted(content.infolist(), key=lambda entry: -entry.compress_size)[:_NAMED]
    return ", ".join(f"{entry.filename} ({in_mib(entry.compress_size)})" for entry in found)
