"""`proxmo submit`: run `proxmo train` on a Ray cluster, and follow it.

    proxmo submit tuned_examples/quickstart.py seed=1
    proxmo submit --address http://head:8265 --env WANDB_API_KEY --no-follow tuned_examples/quickstart.py

What follows the script is for `proxmo train`.

It does what `ray job submit` does, with what is needed here filled in: the checkout travels along (without virtual
environments, runs and history), the token of Ray's authentication is found, and a cluster that is not there is said so.
Written for the job API of Ray 2.60.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.cli.examples import installed_example, list_examples

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
RUNS = "PROXMO_RUNS"  # where `proxmo train` makes its run folders
NO_AGENT = "No available agent"  # what the job server answers until its agent runs
AGENT_POLL_S = 3.0
AGENT_LOG = "dashboard_agent.log"
ANSWER_S = 10.0
# Not sent to the cluster: Ray refuses a working directory over 500 MiB. Patterns are those of .gitignore.
EXCLUDES = (".git", ".venv*", "__pycache__", ".*_cache", "/build", "/dist", "/docs", "/runs", "/tests", "/wandb")


def entrypoint(script: str, arguments: Sequence[str]) -> str:
    """The shell command that the cluster runs, in the copy of the working directory.

    `python -m` and not `proxmo`: it puts the working directory first on the path, so that the code that was sent runs,
    and not what the image has. Runs go where the cluster's nodes say, since the copy is removed with the cluster.
    """
    command = shlex.join(["python", "-m", "proxmo_rllib.cli", "train", script, *arguments])
    return f'{RUNS}="${{{RUNS}:-$HOME/proxmo_runs}}" {command}'


def runtime_env(folder: Path | None, variables: Mapping[str, str]) -> dict[str, Any]:
    """Ray's description of what the job needs: the folder to copy, and environment variables."""
    environment: dict[str, Any] = {"env_vars": dict(variables)}
    if folder is not None:
        environment |= {"working_dir": str(folder), "excludes": list(EXCLUDES)}
    return environment


def find_token(environment: MutableMapping[str, str], home: Path) -> None:
    """Have Ray send its token if there is one: `ray start` asks for it, and the job client sends none by itself.

    A RAY_AUTH_MODE that is set is left as it is. To be called before ray is imported, which reads it.
    """
    if "RAY_AUTH_MODE" in environment:
        return
    kept = home / ".ray" / "auth_token"
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH") or kept.is_file():
        environment["RAY_AUTH_MODE"] = "token"


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


def job_server(said: str | None, environment: Mapping[str, str]) -> str:
    """The address to use: the one that was said, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS if it is a job server's.

    Raises:
        ValueError: it is not an http address.
    """
    ray_address = environment.get("RAY_ADDRESS", "")
    address = said or environment.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if not said and "RAY_API_SERVER_ADDRESS" not in environment and ray_address.startswith("http"):
        address = ray_address
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--address {address}: the job server speaks HTTP; say {DEFAULT_ADDRESS} or the like")
    return address


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster's job server.

    Raises:
        ConnectionError: nothing answers there, or it asks for a token that this machine does not have.
    """
    # Ray prefers its two environment variables to the argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        text = str(error)
        if "authentication" in text.lower() or "401" in text or "403" in text:
            remedy = "copy ~/.ray/auth_token from the head node, or set RAY_AUTH_TOKEN"
        else:
            remedy = "start a cluster (ray start --head), open a tunnel (ray dashboard FILE.yaml), or say --address"
        raise ConnectionError(f"{address}: {text.splitlines()[0] if text else error!r}; {remedy}") from error


def submit_when_ready(client: JobSubmissionClient, wait_s: float, **job: Any) -> str:
    """Submit; a cluster that has just started takes jobs only when its agent runs, some seconds after it answers.

    Args:
        client: from `connect`.
        wait_s: how long to wait for the agent.
        job: the arguments of `JobSubmissionClient.submit_job`.

    Returns:
        The job's id.

    Raises:
        RuntimeError: the cluster refuses the job, its agent broke, or it has none after `wait_s`; with Ray's reason.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            agent = ask_for_agent(client)
            if agent.broke or time.monotonic() > deadline:
                raise RuntimeError(f"the cluster takes no jobs: {agent.in_words()}") from error
            print(f"the cluster is not ready for jobs yet: {agent.in_words()}", flush=True)
        time.sleep(AGENT_POLL_S)


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of the process that starts jobs on a cluster's head.

    Attributes:
        log: its log's place.
        broke: the error that it ended with, as its log has it; empty if none.
    """

    log: str
    broke: str = ""

    def in_words(self) -> str:
        """For a person who waits for it."""
        if not self.broke:
            return f"its job agent does not answer; a port in use is the usual cause, its log has it: {self.log}"
        remedy = ""
        if "address already in use" in self.broke:
            remedy = "; start the head with a free port: ray start --head --dashboard-agent-listen-port=PORT"
        return f"its job agent broke: {self.broke}{remedy}; its log: {self.log}"


def ask_for_agent(client: JobSubmissionClient) -> Agent:
    """What the head's job agent does, from its log, where the head is this machine; else where the log is."""
    try:
        answer = client._do_request("GET", "/nodes?view=summary", timeout=ANSWER_S)
        summary = answer.json()["data"]["summary"]
        head = next(node["raylet"] for node in summary if node["raylet"].get("isHeadNode"))
        log = Path(head["sessionDir"]) / "logs" / AGENT_LOG
        host = head["nodeManagerAddress"]
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration):
        # The dashboard itself is starting, or of another Ray: then where to look is all that can be said.
        return Agent(f"/tmp/ray/session_latest/logs/{AGENT_LOG} on the head")
    # The dashboard shows logs through the agent, which is what is missing.
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    errors = re.findall(r"^\w*(?:Error|Exception): .+$", text, re.MULTILINE)
    return Agent(f"{log} on {host}", errors[-1] if errors else "")


async def follow(client: JobSubmissionClient, job_id: str) -> None:
    """Copy the job's log to stdout until it ends."""
    async for lines in client.tail_job_logs(job_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo submit",
        description="Run `proxmo train SCRIPT ...` on a Ray cluster, and follow its log.",
        epilog="Ctrl-C ends the following, not the job.",
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
    parser.add_argument("--folder", type=Path, default=Path(), help="what is copied to the cluster (default: .)")
    parser.add_argument("--runs", help="folder on the cluster for runs (default: its $PROXMO_RUNS, or ~/proxmo_runs)")
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
    folder = None if arguments.no_copy else arguments.folder.absolute()
    find_token(os.environ, Path.home())
    try:
        variables = parse_variables(arguments.env, os.environ)
        if arguments.runs:
            variables[RUNS] = arguments.runs
        address = job_server(arguments.address, os.environ)
        client = connect(address)
        job_id = submit_when_ready(
            client,
            arguments.wait,
            entrypoint=entrypoint(arguments.script, arguments.arguments),
            submission_id=arguments.job_id,
            runtime_env=runtime_env(folder, variables),
        )
    except (ValueError, ConnectionError, RuntimeError) as error:
        print(f"proxmo submit: {error}", file=sys.stderr)
        return 1
    print(f"submitted {job_id}; stop it with: ray job stop --address {address} {job_id}", flush=True)
    if arguments.no_follow:
        return 0
    try:
        asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on; see it with: ray job logs --follow --address {address} {job_id}")
        return 130
    details = client.get_job_info(job_id)
    print(f"{job_id}: {details.status.value}" + (f", {details.message}" if details.message else ""))
    return 0 if details.status.value == "SUCCEEDED" else 1
