"""The server's process ends with its parent, however that ends; ports are tried before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxmo_rllib.serving.server import check_port

_WAITS = """
import signal, threading, time
from proxmo_rllib.serving.vllm_process import end_with_parent

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=end_with_parent, daemon=True).start()
print("waits", flush=True)
time.sleep(600)
"""


def test_a_server_whose_parent_is_gone_is_interrupted(repository):
    """The parent's end of the pipe closes however it ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITS],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waits\n"
    _, said = process.communicate(timeout=60)  # closes its input
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0


def test_a_free_port_is_found_and_left_free():
    port = check_port("127.0.0.1", 0)
    assert port > 0
    assert check_port("127.0.0.1", port) == port


def test_an_address_of_another_machine_is_named():
    with pytest.raises(ValueError, match=r"--host 192\.0\.2\.1 --port 0: it cannot be listened on"):
        check_port("192.0.2.1", 0)
