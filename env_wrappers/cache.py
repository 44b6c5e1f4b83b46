"""Where what is slow to make is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`env_wrappers` in $XDG_CACHE_HOME or ~/.cache; made if it is not there."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "env_wrappers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"The cache folder {folder} cannot be made ({error}); set XDG_CACHE_HOME to one that can."
        ) from error
    return folder
