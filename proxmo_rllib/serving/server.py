"""vLLM's server as a process of its own, from its start to its end: nothing of it is left when the command is over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from proxmo_rllib.inference.own_log import last_error
from proxmo_rllib.machine.scratch import Scratch
from proxmo_rllib.serving.access import OPEN_PATH
from proxmo_rllib.serving.command import Served, environment_for_vllm, words_for_vllm

# Between two looks whether it answers; of an orderly end.
_LOOK_S = 0.5
_END_S = 30.0
# Bytes of a socket's path, and of what is added to the temporary folder's: a scratch folder, and vLLM's name.
_SOCKET_PATH, _SOCKET_NAME = 107, len("/proxmo_scratch_abcdefgh/") + 36


class ServerError(RuntimeError):
    """The server did not start, or ended by itself."""


def check_port(host: str, port: int) -> int:
    """A port that can be listened on.

    Args:
        host: address of this machine.
        port: 0 for any that is free.

    Returns:
        The port.

    Raises:
        ValueError: it is in use, or this machine has no such address; says what to do.
    """
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port {port}: a port is a number from 1 to 65535, or 0 for any that is free.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[4])
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise ValueError(f"--host {host}: there is no such address ({error.strerror}); say 127.0.0.1.") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(
            f"--host {host} --port {port}: it cannot be listened on ({reason}); say another --port, or 0 for any that "
            "is free."
        ) from error


def check_temporary_folder() -> None:
    """Whether vLLM's sockets find room in it.

    Raises:
        ValueError: its path is too long for them; says what to do.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + _SOCKET_NAME > _SOCKET_PATH:
        raise ValueError(
            f"TMPDIR={folder}: vLLM's sockets lie in it, and their paths may have {_SOCKET_PATH} bytes; set it to a "
            f"folder whose path has at most {_SOCKET_PATH - _SOCKET_NAME}."
        )


class VLLMServer:
    """Starts with the `with` block and is gone after it, however the block ends.

    Args:
        served: what, and how.
        key: that clients have to send.
        log: file for what vLLM says; None for this process's standard error.
    """

    def __init__(self, served: Served, key: str, log: Path | None = None) -> None:
        self._served = served
        self._key = key
        self._log = log

    def __enter__(self) -> VLLMServer:
        self._scratch = Scratch()
        words = [sys.executable, "-P", "-m", "proxmo_rllib.serving.vllm_process", *words_for_vllm(self._served)]
        with contextlib.ExitStack() as stack:
            log = None if self._log is None else stack.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(
                words,
                env=environment_for_vllm(os.environ, self._key, self._scratch.path),
                stdin=subprocess.PIPE,  # its end tells the server that this process is gone
                stdout=log or sys.stderr,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        finally:
            # Whatever is left of its session, EngineCore too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._scratch.remove()

    def wait_until_ready(self) -> float:
        """Returns when it answers.

        Returns:
            Seconds that it took.

        Raises:
            ServerError: it ended before; with the reason from its log.
        """
        start = time.monotonic()
        while not self._answers():
            self._require_alive("did not start")
            time.sleep(_LOOK_S)
        return time.monotonic() - start

    def wait(self) -> None:
        """Returns never, but for an interrupt.

        Raises:
            ServerError: it ended by itself.
        """
        while True:
            self._require_alive("ended by itself")
            time.sleep(_LOOK_S)

    def _require_alive(self, what: str) -> None:
        if (status := self._process.poll()) is not None:
            cause = f" Status {status}." if self._log is None else last_error(self._log)
            raise ServerError(f"vLLM's server {what}:{cause}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._served.url}{OPEN_PATH}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM ends as Ctrl-C does, so that what was started is ended too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
