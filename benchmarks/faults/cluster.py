"""Two real Ray nodes on this machine, started as on a cluster, with a token: a head and one that can be killed."""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.faults import processes

_RAY = str(Path(sys.executable).parent / "ray")
_HEAD_IP, _NODE_IP = "127.0.0.2", "127.0.0.3"  # for 127.0.0.1 Ray takes the address of a network card
_NODE_CPUS = 3  # enough for a whole run beside its driver
_START_S = 120.0
_ATTEMPTS = 3  # Ray gives a raylet 30 s to start and then ends, which a loaded machine exceeds


class Cluster:
    """A head and a second node. Its processes are this process's children, which `processes.end_all` ends.

    Args:
        folder: for logs and sockets; its path is short.
        head_cpus: in the head's books: what does not fit goes to the second node.
    """

    def __init__(self, folder: Path, head_cpus: int) -> None:
        self.folder = folder
        self._head_cpus = head_cpus
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.address = ""
        self._node: subprocess.Popen[bytes] | None = None
        self._started = 0

    def start(self) -> None:
        """Starts both.

        Raises:
            RuntimeError: Ray did not come up.
        """
        for _ in range(_ATTEMPTS):
            port = free_ports(1)[0]
            if self._launch("--head", f"--port={port}", f"--node-ip-address={_HEAD_IP}") is not None:
                self.address = f"{_HEAD_IP}:{port}"
                self.add_node()
                return
        raise RuntimeError(f"ray start --head did not come up in {_ATTEMPTS} attempts, see {self.folder}")

    def add_node(self) -> None:
        """Starts a second node, again after the first one was killed.

        Raises:
            RuntimeError: Ray did not come up.
        """
        for _ in range(_ATTEMPTS):
            self._node = self._launch(f"--address={self.address}", f"--node-ip-address={_NODE_IP}")
            if self._node is not None:
                return
        raise RuntimeError(f"ray start did not join in {_ATTEMPTS} attempts, see {self.folder}")

    def second_node(self) -> list[psutil.Process]:
        """All processes of the second node."""
        assert self._node is not None, "start comes first"
        root = psutil.Process(self._node.pid)
        return [root, *processes.living(root)]

    def _launch(self, *words: str) -> subprocess.Popen[bytes] | None:
        self._started += 1
        cpus = self._head_cpus if "--head" in words else _NODE_CPUS
        log = self.folder / f"ray_start_{self._started}.txt"
        if "--head" in words:
            (dashboard,) = free_ports(1)
            words = (
                *words,
                f"--dashboard-port={dashboard}",
                "--include-dashboard=false",
                f"--temp-dir={self.folder}/ray",
            )
        agent, agent_grpc, metrics, runtime_env = free_ports(4)
        ports = {
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": agent_grpc,
            "metrics-export-port": metrics,
            "runtime-env-agent-port": runtime_env,
        }
        command = [
            *(_RAY, "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=300000000"),
            *("--disable-usage-stats", *words, *(f"--{name}={port}" for name, port in ports.items())),
        ]
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | self.environment
        with log.open("wb") as output:
            started = processes.start(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _START_S
        while started.poll() is None and time.monotonic() < deadline:
            if "Ray runtime started" in log.read_text(errors="replace"):
                return started
            time.sleep(0.2)
        started.kill()
        return None


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
    raise RuntimeError("no free ports on 127.0.0.1")
