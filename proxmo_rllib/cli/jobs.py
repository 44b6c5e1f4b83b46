"""`proxmo jobs`: the trainings that were submitted to a Ray cluster.

    proxmo jobs                                   # list them
    proxmo jobs logs raysubmit_a1b2 --follow
    proxmo jobs stop raysubmit_a1b2
    proxmo jobs fetch raysubmit_a1b2 runs/from-the-cluster

`fetch` brings a run's folder here: metrics, the record of episodes, and the latest checkpoint, from the head node's
disk (or one that it shares), or from the storage that the run was given. It may be typed again: what is here is not
sent twice, and a run that goes on may be fetched meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from proxmo_rllib.cli.submit import follow_to_the_end
from proxmo_rllib.jobs.client import DEFAULT_ADDRESS, connect, state_of
from proxmo_rllib.jobs.endings import ENDED, why_failed
from proxmo_rllib.machine.disk import in_mib
from proxmo_rllib.storage.place import is_uri, open_place

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_WIDE = 160
_STOPS_S = 150.0
_POLL_S = 0.5


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line; exits with a message as argparse does."""
    # Without a default: an action's parser would put it over what was said before the action.
    server = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    server.add_argument(
        "--address",
        help=f"the cluster's job server (default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS or {DEFAULT_ADDRESS})",
    )
    parser = argparse.ArgumentParser(
        prog="proxmo jobs", description="The trainings that were submitted to a Ray cluster.", parents=[server]
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", parents=[server], help="show all jobs (the default)")
    logs = actions.add_parser("logs", parents=[server], help="print what a job has said")
    logs.add_argument("job", metavar="JOB")
    logs.add_argument("--follow", action="store_true", help="go on until it ends; Ctrl-C leaves the job")
    stop = actions.add_parser("stop", parents=[server], help="end a job; it saves first, within its period of grace")
    stop.add_argument("job", metavar="JOB")
    fetch = actions.add_parser("fetch", parents=[server], help="bring a job's run here")
    fetch.add_argument("job", metavar="JOB")
    fetch.add_argument("folder", type=Path, nargs="?", help="where to (default: runs/NAME, as it is there)")
    fetch.add_argument(
        "--checkpoints", choices=("latest", "all", "none"), default="latest", help="which of them (default: latest)"
    )
    arguments = parser.parse_args(argv)
    arguments.address = getattr(arguments, "address", None)
    arguments.action = arguments.action or "list"
    return arguments


def main(argv: list[str]) -> int:
    """Do what is asked; see the module's docstring."""
    arguments = parse(argv)
    try:
        client, address = connect(arguments.address)
        if arguments.action == "list":
            return _list(client)
        if arguments.job not in {job.submission_id for job in client.list_jobs()}:
            raise LookupError(f"{arguments.job}: {address} has no such job; `proxmo jobs` lists them")
        if arguments.action == "stop":
            return _stop(client, arguments.job)
        if arguments.action == "fetch":
            return _fetch(client, arguments)
        if arguments.follow:
            return follow_to_the_end(client, arguments.job, address)
        print(client.get_job_logs(arguments.job), end="")
        return 0
    except (ValueError, RuntimeError, LookupError, OSError) as error:
        print(f"proxmo jobs: {error}", file=sys.stderr)
        return 1


def _list(client: JobSubmissionClient) -> int:
    table = Table(box=None, pad_edge=False)
    for name in ("job", "status", "began", "minutes", "what"):
        table.add_column(name, justify="right" if name == "minutes" else "left", overflow="fold")
    jobs = sorted((job for job in client.list_jobs() if job.submission_id), key=lambda job: job.start_time or 0)
    for job in jobs:
        table.add_row(job.submission_id, job.status.value, *_times(job), what(job.entrypoint))
    if not jobs:
        print("no jobs")
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table, markup=False)
    for job in jobs:
        if job.status.value == "FAILED":
            print(f"{job.submission_id} failed: {why_failed(job.message, job.message or '')}")
    return 0


def _times(job: Any) -> tuple[str, str]:
    """When a job began, and how many minutes it took until its end, or until now."""
    if not job.start_time:
        return "", ""
    began = job.start_time / 1000
    ended = job.end_time / 1000 if job.end_time else time.time()
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(began)), f"{(ended - began) / 60:.1f}"


def what(command: str) -> str:
    """What a job does, of its command: the words for `proxmo train`; the command itself, where it is something else."""
    _, found, words = command.partition(" train ")
    return words if found and "proxmo" in command else command.strip().splitlines()[0][:80]


def _stop(client: JobSubmissionClient, job: str) -> int:
    """Ends a job, and waits until it has ended."""
    if client.get_job_status(job) not in ENDED:
        client.stop_job(job)
    deadline = time.monotonic() + _STOPS_S
    while (status := state_of(client, job)[0]) not in ENDED:
        if time.monotonic() > deadline:
            print(f"proxmo jobs: {job} is still {status} after {_STOPS_S:.0f} s; it may be saving", file=sys.stderr)
            return 1
        time.sleep(_POLL_S)
    print(f"{job}: {status}")
    return 0


def _fetch(client: JobSubmissionClient, arguments: argparse.Namespace) -> int:
    from proxmo_rllib.jobs.files import fetch_run, linked, run_folder_of

    place = run_folder_of(client.get_job_logs(arguments.job))
    target = arguments.folder or Path("runs") / PurePosixPath(place.partition("?")[0]).name
    if is_uri(place):
        return _fetch_stored(place, target, arguments.checkpoints)
    with linked(client, place, print) as remote:
        came = fetch_run(remote, target, arguments.checkpoints, lambda name: None)
    latest = "" if remote.listing.latest is None else f", latest checkpoint {remote.listing.latest}"
    print(f"{target}: {in_mib(came)} came{latest}; see it with: proxmo view {target}")
    return 0


def _fetch_stored(uri: str, target: Path, checkpoints: str) -> int:
    """Brings a run here from its storage, which this machine has to reach itself."""
    from proxmo_rllib.storage.fetch import checkpoints_at, fetch_files, fetch_run

    run = open_place(uri)
    if checkpoints == "all":
        for name in reversed(checkpoints_at(run)):
            fetch_run(run, target, checkpoint=name, say=print)
    elif checkpoints == "latest":
        fetch_run(run, target, say=print)
    else:
        fetch_files(run, target)
    print(f"{target}: fetched from {uri}; see it with: proxmo view {target}")
    return 0
