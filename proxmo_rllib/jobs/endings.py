"""How a job ended, in a line."""

from __future__ import annotations

import re

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_EXIT = re.compile(r"failed with exit code (-?\d+)")
_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_SAID = re.compile(r"^(?:proxmo \w+: .+|\w+(?:\.\w+)*(?:Error|Exception)\b.*)$")
_KILLED = {
    "-9": "it was killed (SIGKILL), mostly by the kernel for want of memory",
    "137": "it was killed (SIGKILL), mostly by the kernel for want of memory",
    "130": "it was interrupted, and has saved what it could",
    "-15": "it was ended by SIGTERM",
    "143": "it was ended by SIGTERM",
}


def why_failed(message: str | None, log: str) -> str:
    """Why a job failed: the last thing that looks like a reason in its log, or what Ray says.

    Args:
        message: Ray's, which has the exit status, and the log's end once more.
        log: of the job.
    """
    message = message or ""
    code = _EXIT.search(message)
    if code is None:  # the job did not come as far as its command
        return next((line.strip() for line in message.splitlines() if line.strip()), "Ray does not say why")
    status = code.group(1)
    if status in _KILLED:
        return f"exit status {status}: {_KILLED[status]}"
    lines = log.splitlines()
    said = next((line for line in reversed(lines) if _SAID.match(line)), None)
    if said is None:
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if missing := _MODULE.search(said):
        said += (
            f"; the cluster's Python has no {missing.group(1)}: install it on every node, or use the project's image "
            "(cluster/Dockerfile)"
        )
    return f"exit status {status}: {said}"
