"""The job server of a Ray cluster: its address, its token, its version."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ANSWER_S = 10.0


def find_token(environment: MutableMapping[str, str], home: Path) -> None:
    """Have Ray send its token if there is one: `ray start` asks for it, and the job client sends none by itself.

    A RAY_AUTH_MODE that is set is left as it is. To be called before ray is imported, which reads it.
    """
    if "RAY_AUTH_MODE" in environment:
        return
    kept = home / ".ray" / "auth_token"
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH") or kept.is_file():
        environment["RAY_AUTH_MODE"] = "token"


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


def connect(said: str | None) -> tuple[JobSubmissionClient, str]:
    """A client of a cluster's job server, and the server's address.

    Args:
        said: its address on the command line, if one was said.

    Raises:
        ValueError: it is no address.
        ConnectionError: nothing answers there, it asks for a token that this machine does not have, or it is of
            another Ray.
    """
    find_token(os.environ, Path.home())
    address = job_server(said, os.environ)
    # Ray prefers its two environment variables to the argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        check_ray(address, str(get_json(client, "/api/version")["ray_version"]), metadata.version("ray"))
    except (ConnectionError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, OtherRayError):
            raise
        if "authentication" in text.lower() or "401" in text or "403" in text:
            remedy = "copy ~/.ray/auth_token from the head node, or set RAY_AUTH_TOKEN"
        else:
            remedy = "start a cluster (ray start --head), open a tunnel (ray dashboard FILE.yaml), or say --address"
        raise ConnectionError(f"{address}: {text.splitlines()[0] if text else error!r}; {remedy}") from error
    return client, address


class OtherRayError(ConnectionError):
    """A cluster of a Ray that this package is not for."""


def check_ray(address: str, there: str, here: str) -> None:
    """Whether a cluster has the Ray that this package is written for: the minor release has to be the same.

    Raises:
        OtherRayError: it has another.
    """
    if there.split(".")[:2] != here.split(".")[:2]:
        raise OtherRayError(
            f"{address} is a cluster of Ray {there}, and here is Ray {here}: RLlib's interfaces change with each "
            f"minor release. Make a cluster with 'ray[default,rllib,tune]=={here}' on every node."
        )


def get_json(client: JobSubmissionClient, endpoint: str) -> Any:
    """What the server answers to a GET, read as JSON.

    Raises:
        OSError: it does not answer.
        ValueError: the answer is no JSON.
    """
    return client._do_request("GET", endpoint, timeout=ANSWER_S).json()


def state_of(client: JobSubmissionClient, job_id: str) -> tuple[str | None, str]:
    """A job's status and log; no status where the server is too busy to answer (its answer is 500 or more).

    Raises:
        RuntimeError: there is no such job.
    """
    try:
        return str(client.get_job_status(job_id).value), client.get_job_logs(job_id)
    except RuntimeError as error:
        if "status code 5" not in str(error):
            raise
        return None, ""


def head_node(client: JobSubmissionClient) -> dict[str, Any]:
    """What the dashboard knows of the head node: `nodeId`, `sessionDir`, `nodeManagerAddress`, ...

    Raises:
        LookupError: it does not say; it is starting, or of another Ray.
    """
    try:
        nodes = get_json(client, "/nodes?view=summary")["data"]["summary"]
        return dict(next(node["raylet"] for node in nodes if node["raylet"].get("isHeadNode")))
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration) as error:
        raise LookupError("The dashboard does not say yet which node is the head.") from error
