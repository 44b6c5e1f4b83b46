"""A real Ray head on loopback, of the tests' own."""

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

RAY = str(Path(sys.executable).parent / "ray")
ATTEMPTS = 4  # Ray gives a raylet 30 s to start and then ends, which a loaded machine exceeds


def free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, which could take them before Ray does."""
    found = []
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
        return self.proxmo("submit", "--address", self.address, *words)

    def jobs(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.proxmo("jobs", *words, "--address", self.address)

    def proxmo(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "proxmo_rllib.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=self.environment)


def start_head(folder: Path, log: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int, int]:
    """`ray start --head` with every port and folder of its own; its process, the job server's port, and the GCS's."""
    gcs, dashboard, client, agent, agent_grpc, metrics, runtime_env = free_ports(7)
    with log.open("w") as output:
        head = subprocess.Popen(
            [
                # 127.0.0.2: for 127.0.0.1 Ray takes the address of a network card.
                *(RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.2", "--num-cpus=2"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--port={gcs}"),
                *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
                *(f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}"),
                *(f"--runtime-env-agent-port={runtime_env}", f"--temp-dir={folder / 'ray'}"),
                *("--object-store-memory=500000000", "--disable-usage-stats"),
            ],
            env=environment | {"RAY_AUTH_MODE": "token"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return head, dashboard, gcs


def start_worker(gcs: int, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`ray start --address` of a second node, at an address of its own."""
    agent, agent_grpc, metrics, runtime_env = free_ports(4)
    with log.open("w") as output:
        return subprocess.Popen(
            [
                *(RAY, "start", "--block", f"--address=127.0.0.2:{gcs}", "--node-ip-address=127.0.0.3", "--num-cpus=2"),
                *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
                *(f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}"),
                *("--object-store-memory=500000000", "--disable-usage-stats"),
            ],
            env=environment | {"RAY_AUTH_MODE": "token"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_head(head: subprocess.Popen[bytes]) -> None:
    """End it by its process group: `ray stop` would end every Ray on the machine."""
    for sign, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(head.pid, sign)
            head.wait(timeout=seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that answers, with a token that `proxmo submit` has to find, and a second node."""
    folder = Path(tempfile.mkdtemp(prefix="pxc", dir="/tmp"))  # sockets need a short path
    log = folder / "head.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_A")}
    environment |= {
        "HOME": str(folder),  # where Ray keeps its token
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",
    }
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, env=environment, capture_output=True)
    worker = None
    try:
        for _ in range(ATTEMPTS):
            head, dashboard, gcs = start_head(folder, log, environment)
            while head.poll() is None and "Ray runtime started" not in log.read_text():
                time.sleep(0.5)
            if head.poll() is None:
                break
        else:
            pytest.fail(f"ray start did not come up in {ATTEMPTS} attempts:\n{log.read_text()}")
        worker = start_worker(gcs, folder / "worker.log", environment)
        while worker.poll() is None and "Ray runtime started" not in (folder / "worker.log").read_text():
            time.sleep(0.5)
        assert worker.poll() is None, (folder / "worker.log").read_text()
        yield Cluster(f"http://127.0.0.1:{dashboard}", environment, log)
    finally:
        if worker is not None:
            stop_head(worker)
        stop_head(head)
        shutil.rmtree(folder, ignore_errors=True)
