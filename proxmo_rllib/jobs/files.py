"""A folder of the head node, brought here file by file through the job server.

The dashboard serves the files of its log folder, and follows links in it. So a small job links the run's folder there,
lists what is in it, and waits; the files are fetched one by one, without a second copy on the cluster; then the job is
stopped, and takes the link away. Written for Ray 2.60.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from proxmo_rllib.checkpoint_format import MANIFEST
from proxmo_rllib.jobs.client import head_node, state_of
from proxmo_rllib.jobs.endings import ENDED
from proxmo_rllib.jobs.ready import submit_when_ready

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_MARK = "PROXMO-FILES "
_LATEST = "checkpoints/latest"
_POLL_S = 0.5
_STARTS_S = 120.0
_TRANSFER_S = 24 * 3600
_SAME_S = 0.001
# Nothing but the standard library: the project need not be installed for it.
_LINK = f"""
import json, os, signal, sys, time
folder, link = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if not os.path.isdir(folder):
    sys.exit("no such folder on the head node: " + folder)
try:
    os.symlink(os.path.abspath(folder), link)
    found = {{}}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                about = os.stat(path)
                found[os.path.relpath(path, folder)] = [about.st_size, about.st_mtime]
    latest = os.path.join(folder, {_LATEST!r})
    print({_MARK!r} + json.dumps([found, os.readlink(latest) if os.path.islink(latest) else None]), flush=True)
    time.sleep({_TRANSFER_S})
finally:
    if os.path.islink(link):
        os.unlink(link)
"""
_RUN_FOLDER = re.compile(r"^run folder: (.+)$", re.MULTILINE)


def run_folder_of(log: str) -> str:
    """Where a training has its run, as its log says: a folder on the cluster, or a URI.

    Raises:
        LookupError: it does not say: it ended before it had one, or is no training.
    """
    found = _RUN_FOLDER.search(log)
    if found is None:
        raise LookupError("its log names no run folder: it ended before it had one, or it is no `proxmo train`")
    return found.group(1).strip()


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a folder of the cluster.

    Attributes:
        files: bytes of each file, and when it was last written, by its path in the folder.
        latest: name of the checkpoint that a run goes on from; None if there is none.
    """

    files: dict[str, tuple[int, float]]
    latest: str | None

    def chosen(self, checkpoints: str) -> list[str]:
        """The files to fetch, those that make a checkpoint whole last.

        Args:
            checkpoints: "latest", "all" or "none".
        """

        def wanted(name: str) -> bool:
            parts = PurePosixPath(name).parts
            if any(part.endswith(".part") for part in parts):
                return False
            if parts[0] != "checkpoints":
                return True
            return checkpoints == "all" or (checkpoints == "latest" and len(parts) > 2 and parts[1] == self.latest)

        return sorted(filter(wanted, self.files), key=lambda name: (name.endswith(MANIFEST), name))


class RemoteFolder:
    """A folder of the head node, while `linked` lasts.

    Args:
        client: of the job server.
        node: id of the head node.
        link: name of the link in its log folder.
        listing: what is in it.
    """

    def __init__(self, client: JobSubmissionClient, node: str, link: str, listing: Listing) -> None:
        self._client = client
        self._node = node
        self._link = link
        self.listing = listing

    def fetch(self, name: str, place: Path) -> None:
        """Brings one file here, whole or not at all.

        Raises:
            OSError: it did not come whole.
        """
        where = f"{self._link}/{name}"
        query = f"node_id={self._node}&filename={quote(where)}&lines=-1&timeout={_TRANSFER_S}"
        answer = self._client._do_request("GET", f"/api/v0/logs/file?{query}", stream=True)
        if answer.status_code != 200:
            raise OSError(f"{name}: the cluster does not give it: {answer.text.strip()[:200]}")
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(place.name + ".part")
        with part.open("wb") as file:
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)
        size, (wanted, written) = part.stat().st_size, self.listing.files[name]
        if size < wanted:  # more: a run that goes on writes more lines
            part.unlink()
            raise OSError(f"{name}: {size} bytes came of {wanted}; fetch again, what came stays")
        os.utime(part, (written, written))
        os.replace(part, place)


@contextmanager
def linked(client: JobSubmissionClient, folder: str, say: Callable[[str], object]) -> Iterator[RemoteFolder]:
    """While it lasts, a folder of the head node can be fetched from.

    Raises:
        RuntimeError: the cluster does not do it; says why.
        LookupError: the dashboard does not know the head.
    """
    head = head_node(client)
    name = f"proxmo-{secrets.token_hex(16)}"
    link = str(PurePosixPath(head["sessionDir"]) / "logs" / name)
    command = shlex.join(["python", "-c", _LINK, folder, link])
    job = submit_when_ready(client, _STARTS_S, say, entrypoint=command)
    try:
        yield RemoteFolder(client, str(head["nodeId"]), name, _listing(client, job))
    finally:
        client.stop_job(job)
        deadline = time.monotonic() + _STARTS_S
        while state_of(client, job)[0] not in ENDED and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        client.delete_job(job)


def _listing(client: JobSubmissionClient, job: str) -> Listing:
    deadline = time.monotonic() + _STARTS_S
    while time.monotonic() < deadline:
        status, log = state_of(client, job)
        for line in log.splitlines():
            if line.startswith(_MARK):
                files, latest = json.loads(line.removeprefix(_MARK))
                return Listing({name: (size, written) for name, (size, written) in files.items()}, latest)
        if status in ENDED:
            raise RuntimeError(next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing"))
        time.sleep(_POLL_S)
    raise RuntimeError(f"the cluster did not list the folder within {_STARTS_S:.0f} s")


def fetch_run(remote: RemoteFolder, target: Path, checkpoints: str, say: Callable[[str], object]) -> int:
    """Brings a run here; a file that is here already, of the same size and time, is not fetched again.

    Args:
        remote: the run's folder.
        target: made if it is not there.
        checkpoints: "latest", "all" or "none".
        say: is told of each file.

    Returns:
        Bytes that came.

    Raises:
        OSError: a file did not come, or cannot be written.
    """
    came = 0
    for name in remote.listing.chosen(checkpoints):
        place, (size, written) = target / name, remote.listing.files[name]
        if place.is_file() and place.stat().st_size == size and abs(place.stat().st_mtime - written) < _SAME_S:
            continue
        remote.fetch(name, place)
        came += place.stat().st_size
        say(name)
    latest = remote.listing.latest
    if latest and (target / "checkpoints" / latest).is_dir():
        link = target / _LATEST
        link.unlink(missing_ok=True)
        link.symlink_to(latest)
    return came
