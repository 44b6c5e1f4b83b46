"""Variables that no list of jobs may show: an API key, a password.

Ray keeps the variables of a job with the job, and shows them to everybody who can see its jobs. So a secret goes
another way: into the cluster's own store, under a random name; the job takes it out, which removes it, and puts it into
its own environment. It is in no description, no command line and no file. Whoever has the cluster's token could read it
until then, and can run any code there anyway. Ray drops what nobody took after ten minutes.

As a program (`python -m proxmo_rllib.jobs.secrets NAME train ...`) it is the job's side. Written for Ray 2.60; touches
its private names.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_SAYS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


def looks_secret(name: str) -> bool:
    """Whether a variable's name says that its value is nobody's business."""
    return any(word in name.upper() for word in _SAYS)


def new_name() -> str:
    """A name that nobody guesses, as Ray's store of packages has them."""
    return f"_ray_pkg_{secrets.token_hex(16)}.zip"


def leave(client: JobSubmissionClient, name: str, variables: Mapping[str, str]) -> None:
    """Puts secrets into the cluster's store.

    Raises:
        RuntimeError: it does not take them.
    """
    answer = client._do_request("PUT", f"/api/packages/gcs/{name}", data=json.dumps(dict(variables)).encode())
    if answer.status_code != 200:
        raise RuntimeError(f"the cluster does not take secrets: status {answer.status_code}")


def take(name: str, address: str) -> dict[str, str]:
    """Takes secrets out of the cluster's store.

    Args:
        name: under which they were left.
        address: of the cluster's GCS, as RAY_ADDRESS has it in a job.

    Raises:
        LookupError: they are not there, or no more.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, without types

    store, key = GcsClient(address=address), f"gcs://{name}".encode()
    content = store.internal_kv_get(key, namespace=None)
    if content is None:
        raise LookupError("The secrets of --secret are not in the cluster's store any more; submit the job again.")
    store.internal_kv_del(key, False, namespace=None)
    return {str(key): str(value) for key, value in json.loads(content).items()}


def main(argv: list[str]) -> int:
    """Takes the secrets, and then is `proxmo` with the words that follow their name."""
    name, *words = argv
    os.environ.update(take(name, os.environ["RAY_ADDRESS"]))
    from proxmo_rllib.cli import main as proxmo

    return proxmo(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
