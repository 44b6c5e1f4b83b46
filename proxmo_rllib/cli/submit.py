"""`proxmo submit`: run `proxmo train` on a Ray cluster, and follow it.

    proxmo submit tuned_examples/quickstart.py seed=1
    proxmo submit --address http://head:8265 --secret WANDB_API_KEY --no-follow tuned_examples/quickstart.py --wandb x

What follows the script is for `proxmo train`. `proxmo jobs` lists, stops and fetches what was submitted.

It does what `ray job submit` does, with what is needed here filled in: the checkout travels along (without virtual
environments, runs and history), the token of Ray's authentication is found, and what is wrong with the cluster (not
there, another Ray, another Python, packages that are missing) is said before anything is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxmo_rllib.cli.examples import installed_example, list_examples
from proxmo_rllib.jobs import cluster_python, secrets
from proxmo_rllib.jobs.client import DEFAULT_ADDRESS, connect
from proxmo_rllib.jobs.endings import why_failed
from proxmo_rllib.jobs.parcel import check_size, runtime_env
from proxmo_rllib.jobs.ready import submit_when_ready

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

RUNS = "PROXMO_RUNS"  # where `proxmo train` makes its run folders


def entrypoint(script: str, arguments: Sequence[str], secrets_name: str | None = None) -> str:
    """The shell command that the cluster runs, in the copy of the working directory.

    `python -m` and not `proxmo`: it puts the working directory first on the path, so that the code that was sent runs,
    and not what the image has. Runs go where the cluster's nodes say, since the copy is removed with the cluster.

    Args:
        script: for `proxmo train`.
        arguments: for it, too.
        secrets_name: under which secrets were left for the job, if there are any.
    """
    program = ["proxmo_rllib.cli"] if secrets_name is None else ["proxmo_rllib.jobs.secrets", secrets_name]
    command = shlex.join(["python", "-m", *program, "train", script, *arguments])
    return f'{RUNS}="${{{RUNS}:-$HOME/proxmo_runs}}" {command}'


def parse_variables(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for the job, from NAME=VALUE, or NAME for its value here.

    Raises:
        ValueError: a NAME that is not set here.
    """
    variables = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given and name not in environment:
            raise ValueError(f"--env {name}: it is not set here; say --env {name}=VALUE, or set it")
        variables[name] = value if given else environment[name]
    return variables


def parse_secrets(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Secrets for the job, by the names of variables that are set here: a value on a command line is none.

    Raises:
        ValueError: one is not set here, or was said with its value.
    """
    for name in names:
        if "=" in name:
            name = name.partition("=")[0]
            raise ValueError(f"--secret {name}=...: a command line is no place for a secret; set {name}, say its name")
        if name not in environment:
            raise ValueError(f"--secret {name}: it is not set here; set it: export {name}=...")
    return {name: environment[name] for name in names}


async def follow(client: JobSubmissionClient, job_id: str) -> None:
    """Copy the job's log to stdout until it ends."""
    async for lines in client.tail_job_logs(job_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


def follow_to_the_end(client: JobSubmissionClient, job_id: str, address: str) -> int:
    """Shows the job's log until it ends, or until Ctrl-C; returns 0 if it succeeded, 130 after Ctrl-C, else 1."""
    import aiohttp

    at = shlex.join(["--address", address])
    try:
        asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on; see it with: proxmo jobs logs {job_id} --follow {at}")
        return 130
    except (aiohttp.ClientError, RuntimeError, OSError) as error:
        print(
            f"\nthe connection is lost ({error}); {job_id} goes on; follow it again with: "
            f"proxmo jobs logs {job_id} --follow {at}",
            file=sys.stderr,
        )
        return 1
    details = client.get_job_info(job_id)
    status = details.status.value
    why = why_failed(details.message, client.get_job_logs(job_id)) if status == "FAILED" else ""
    print(f"{job_id}: {status}" + (f", {why}" if why else ""))
    print(f"bring its run here with: proxmo jobs fetch {job_id} {at}")
    return 0 if status == "SUCCEEDED" else 1


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo submit",
        description="Run `proxmo train SCRIPT ...` on a Ray cluster, and follow its log.",
        epilog="Ctrl-C ends the following, not the job: `proxmo jobs stop JOB` does.",
    )
    parser.add_argument("script", help="a file of tuned_examples/, or another that builds a config")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="for `proxmo train`: key=value, --iterations N, ..."
    )
    parser.add_argument(
        "--address",
        help=f"the cluster's job server (default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS or {DEFAULT_ADDRESS})",
    )
    parser.add_argument("--job-id", help="a name for the job (default: Ray makes one)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="a variable for the job")
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that is set here, for the training's own process, which no list of jobs shows",
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="what is copied to the cluster (default: .)")
    parser.add_argument(
        "--runs", help="folder on the cluster, or URI, for runs (default: its $PROXMO_RUNS, or ~/proxmo_runs)"
    )
    parser.add_argument("--no-copy", action="store_true", help="copy nothing: SCRIPT is a path on the cluster")
    parser.add_argument("--wait", type=float, default=120.0, help="seconds to wait for a cluster that is starting")
    parser.add_argument("--no-follow", action="store_true", help="return once it is submitted")
    arguments = parser.parse_args(argv)
    there = (arguments.folder / arguments.script).is_file() or installed_example(arguments.script) is not None
    if not arguments.no_copy and not there:
        parser.error(
            f"{arguments.script}: no such file in {arguments.folder.absolute()}, the folder that is copied to the "
            f"cluster; say --folder, or --no-copy if it is on the cluster already; or one {list_examples()}"
        )
    return arguments


def main(argv: list[str]) -> int:
    """Submit, follow, and return 0 if the job succeeded; see the module's docstring."""
    arguments = parse(argv)
    try:
        variables = parse_variables(arguments.env, os.environ)
        kept = parse_secrets(arguments.secret, os.environ)
        for name in filter(secrets.looks_secret, variables):
            print(f"whoever sees the cluster's jobs sees {name}; --secret {name} hides it", file=sys.stderr)
        if arguments.runs:
            variables[RUNS] = arguments.runs
        client, address = connect(arguments.address)
        job_id = _submit(client, arguments, variables, kept)
    except (ValueError, ConnectionError, RuntimeError) as error:
        print(f"proxmo submit: {error}", file=sys.stderr)
        return 1
    print(f"submitted {job_id}; stop it with: proxmo jobs stop {job_id} --address {address}", flush=True)
    return 0 if arguments.no_follow else follow_to_the_end(client, job_id, address)


def _submit(
    client: JobSubmissionClient, arguments: argparse.Namespace, variables: Mapping[str, str], kept: Mapping[str, str]
) -> str:
    """Asks the cluster's Python, and then sends the job; returns its id."""

    def say(text: str) -> None:
        print(text, flush=True)

    folder = None if arguments.no_copy else arguments.folder.absolute()
    needed = cluster_python.requirements(sent=folder is not None and (folder / "proxmo_rllib").is_dir())
    question = cluster_python.question([each.name for each in needed])
    asked = submit_when_ready(client, arguments.wait, say, entrypoint=question)
    cluster_python.check_python(cluster_python.ask(client, asked, arguments.wait), needed)
    if folder is not None:
        check_size(folder)
    name = secrets.new_name() if kept else None
    if name is not None:
        secrets.leave(client, name, kept)
    return submit_when_ready(
        client,
        arguments.wait,
        say,
        entrypoint=entrypoint(arguments.script, arguments.arguments, name),
        submission_id=arguments.job_id,
        runtime_env=runtime_env(folder, variables),
    )
