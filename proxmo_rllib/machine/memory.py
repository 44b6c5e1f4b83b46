"""How much memory this machine has left."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int:
    """Bytes that can still be had: of the machine, and of this process's control group."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        available = min(available, int(text) - int(used.read_text()))
    return available
