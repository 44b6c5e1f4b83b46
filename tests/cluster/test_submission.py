"""A real Ray head on loopback takes a job from `proxmo submit`, with Ray's token authentication on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, which could take them before Ray does."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 30_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    pytest.fail("no free ports on 127.0.0.1")


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]
    log: Path

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "proxmo_rllib.cli", "submit", "--address", self.address, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=self.environment)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`ray start --head` with every port and folder of its own; ended by its process, never by `ray stop`."""
    # 127.0.0.2: for 127.0.0.1 Ray takes the address of a network card.
    folder = Path(tempfile.mkdtemp(prefix="pxc", dir="/tmp"))  # sockets need a short path
    gcs, dashboard, client, agent, agent_grpc, metrics, runtime_env = free_ports(7)
    log = folder / "head.log"
    environment = {key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_MODE"}}
    environment |= {
        "HOME": str(folder),  # where Ray keeps its token
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
    }
    ray = str(Path(sys.executable).parent / "ray")
    subprocess.run([ray, "get-auth-token", "--generate"], check=True, env=environment, capture_output=True)
    head = subprocess.Popen(
        [
            *(ray, "start", "--head", "--block", "--node-ip-address=127.0.0.2", "--num-cpus=4"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--port={gcs}"),
            *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}"),
            *(f"--runtime-env-agent-port={runtime_env}", f"--temp-dir={folder / 'ray'}"),
            *("--object-store-memory=500000000", "--disable-usage-stats"),
        ],
        env=environment,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    del environment["RAY_AUTH_MODE"]  # proxmo submit must find out by itself
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", dashboard), timeout=1).close()
                break
            except OSError:
                if head.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"ray start did not come up:\n{log.read_text()}")
                time.sleep(0.5)
        yield Cluster(f"http://127.0.0.1:{dashboard}", environment, log)
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder whose `proxmo_rllib.cli train` says what it was given and ends as told."""
    package = tmp_path / "proxmo_rllib" / "cli"
    package.mkdir(parents=True)
    (tmp_path / "proxmo_rllib" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, sys\n"
        "print('trained', *sys.argv[1:], 'with', os.environ['FLAVOUR'], 'beside', sorted(os.listdir('.')))\n"
        "sys.exit(int(sys.argv[-1].split('=')[1]))\n"
    )
    (tmp_path / "x.py").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "checkpoint").touch()
    return tmp_path


def test_the_job_gets_the_code_the_settings_and_the_variables(cluster, checkout):
    done = cluster.submit("--folder", str(checkout), "--env", "FLAVOUR=plain", "x.py", "seed=1", "status=0")
    assert done.returncode == 0, done.stdout + done.stderr + cluster.log.read_text()
    assert "trained train x.py seed=1 status=0 with plain beside ['proxmo_rllib', 'x.py']" in done.stdout
    assert "SUCCEEDED" in done.stdout


def test_a_job_that_fails_is_not_taken_for_a_success(cluster, checkout):
    done = cluster.submit("--folder", str(checkout), "--env", "FLAVOUR=plain", "x.py", "status=3")
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_without_the_token_it_says_where_to_get_it(cluster, checkout, tmp_path):
    stranger = Cluster(cluster.address, cluster.environment | {"HOME": str(tmp_path)}, cluster.log)
    done = stranger.submit("--folder", str(checkout), "x.py")
    assert done.returncode == 1
    assert "auth_token" in done.stderr, done.stderr
