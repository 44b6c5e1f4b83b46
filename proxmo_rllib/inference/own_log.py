"""What this process and its children have written to standard error, where that is a file: an engine's cause of death.

vLLM's EngineCore is a process of its own. What broke it stands in its traceback on standard error, which it shares
with its parent; the parent learns only that it is dead. Ray sends a worker's standard error to a file, and so does a
command.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_AT_MOST = 1 << 20  # bytes that are read back
# vLLM's own summaries of what stands above them.
_SUMMARIES = ("EngineDeadError", "Engine core initialization failed", "EngineCore encountered", "EngineCore failed")
# "(EngineCore pid=12) ERROR 11-27 11:22:36 [core.py:1512] ValueError: no room" -> "ValueError: no room"
_PREFIX = re.compile(r"^(\(\w+[^)]*\) )?([A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
_ERROR = re.compile(r"^([\w.]+\.)?[A-Z]\w*(Error|Exception|Interrupt|Exit)\b")


class OwnLog:
    """Standard error from the moment of the object's making."""

    def __init__(self) -> None:
        self._path = Path(os.path.realpath("/proc/self/fd/2"))
        self._start = self._path.stat().st_size if self._path.is_file() else 0

    def cause(self) -> str:
        """The last error in it that says what happened, on one line, and where to read more; empty if there is none."""
        return last_error(self._path, self._start) if self._path.is_file() else ""


def last_error(log: Path, start: int = 0) -> str:
    """The last error in a log that says what happened, on one line, and where to read more.

    Args:
        log: the file.
        start: byte from which it counts.
    """
    with log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - _AT_MOST))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [_PREFIX.sub("", line) for line in lines]
    found = [place for place, line in enumerate(said) if _ERROR.match(line) and not _is_summary(line)]
    if not found:
        return f" Its log: {log}"
    # The message may go on over some lines, up to the next one that is a traceback's or a logger's.
    place = found[-1]
    message = [said[place]]
    for line in said[place + 1 : place + 4]:
        if not line.strip() or line.startswith(("Traceback", "  File", "The above", "During ")) or _ERROR.match(line):
            break
        message.append(line.strip())
    return f" {' '.join(message)} (log: {log})"


def _is_summary(line: str) -> bool:
    return any(words in line for words in _SUMMARIES)
