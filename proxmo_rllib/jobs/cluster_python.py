"""What the Python of a cluster has, asked by a job of a second, before anything is sent."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from proxmo_rllib.jobs.client import state_of
from proxmo_rllib.jobs.endings import ENDED

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DISTRIBUTION = "proxmo_rllib"
_MARK = "PROXMO-PYTHON "
# Nothing but the standard library: it runs before the project is there.
_QUESTION = f"""
import json, sys
from importlib import metadata
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
print({_MARK!r} + json.dumps(
    [sys.version.split()[0], sys.executable, {{name: version(name) for name in sys.argv[1:]}}]), flush=True)
"""
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class ClusterPython:
    """The Python that runs jobs on a cluster.

    Attributes:
        version: such as "3.11.7".
        path: of its program.
        packages: version of each that was asked for; None if it is not there.
    """

    version: str
    path: str
    packages: Mapping[str, str | None]


def requirements(sent: bool) -> list[Requirement]:
    """What a training needs of the cluster's Python.

    Args:
        sent: whether the package itself travels with the job.
    """
    try:
        said = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a checkout on the path, without having been installed
        said = ["ray"]
    needed = [each for each in map(Requirement, said) if each.marker is None or each.marker.evaluate({"extra": ""})]
    return needed if sent else [*needed, Requirement(DISTRIBUTION)]


def question(names: Sequence[str]) -> str:
    """The shell command that answers with the versions of packages."""
    return shlex.join(["python", "-c", _QUESTION, *names])


def read_answer(log: str) -> ClusterPython:
    """Reads what `question` printed.

    Raises:
        RuntimeError: it printed no answer.
    """
    for line in log.splitlines():
        if line.startswith(_MARK):
            version, path, packages = json.loads(line.removeprefix(_MARK))
            return ClusterPython(version, path, packages)
    said = next((line for line in reversed(log.splitlines()) if line.strip()), "nothing")
    raise RuntimeError(
        f"the cluster does not run `python`: it said {said!r}; the nodes need a Python 3.11 or 3.12 with the project's "
        "packages as `python` on their PATH (cluster/Dockerfile makes an image)"
    )


def check_python(there: ClusterPython, needed: Sequence[Requirement]) -> None:
    """Whether a training can run with a cluster's Python.

    Raises:
        RuntimeError: it cannot; names what is missing, and the remedy.
    """
    short = tuple(int(part) for part in there.version.split(".")[:2])
    if not (3, 11) <= short < (3, 13):
        raise RuntimeError(
            f"the cluster's Python is {there.version} ({there.path}), and the project needs 3.11 or 3.12: use an image "
            "with one (cluster/Dockerfile), or put it first on the nodes' PATH"
        )
    lacking = []
    for each in needed:
        version = there.packages.get(each.name)
        if version is None:
            lacking.append(each.name)
        elif not each.specifier.contains(version, prereleases=True):
            lacking.append(f"{each.name} {version} (needs {each.specifier})")
    if lacking:
        package = ": pip install '.[gpu]' from the checkout" if DISTRIBUTION in lacking else ""
        raise RuntimeError(
            f"the cluster's Python ({there.path}) lacks {', '.join(lacking)}: install the project on every node"
            f"{package or ' (pip install .[gpu])'}, or use its image (cluster/Dockerfile)"
        )


def ask(client: JobSubmissionClient, job_id: str, timeout_s: float) -> ClusterPython:
    """Waits for the answer of a job that runs `question`, and removes the job.

    Raises:
        RuntimeError: there is none.
    """
    deadline = time.monotonic() + timeout_s
    while (state := state_of(client, job_id))[0] not in ENDED:
        if time.monotonic() > deadline:
            client.stop_job(job_id)
            raise RuntimeError(
                f"the cluster did not run a job of a second within {timeout_s:.0f} s: see its state on the dashboard, "
                f"and its log with: proxmo jobs logs {job_id}"
            )
        time.sleep(_POLL_S)
    answer = read_answer(state[1])
    client.delete_job(job_id)
    return answer
