"""Engines that run in Java: one Java process for all environments of this process, and one call at a time.

A Java process takes a second or two to start and hundreds of megabytes, so it is shared. Nobody promises that these
engines keep their instances apart when two of them are called at once, so they are not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_machines: dict[tuple[int, str], Java] = {}  # by process, so that a fork does not talk on its parent's line
_starting = threading.Lock()


class Java:
    """A running Java process with an engine's classes."""

    def __init__(self, jar: str, extra: str) -> None:
        """Start it.

        Args:
            jar: path of the engine's classes.
            extra: the extra of this project that installs the engine, for messages.

        Raises:
            RuntimeError: there is no Java, or it does not start.
        """
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        self._extra = extra
        if shutil.which("java") is None:
            raise RuntimeError(
                f"The environment of the extra {extra!r} runs in Java, and there is no command `java`; install a Java "
                "runtime, 8 or later (on Debian and Ubuntu: apt-get install default-jre-headless)."
            )
        options = [
            "-XX:+UseSerialGC",  # one thread that collects garbage, not one a core
            "-XX:TieredStopAtLevel=1",  # starts sooner
            # Objects without a hash of their own get one and the same, so that what an engine lists in the order of a
            # set of them is in the same order in every instance.
            "-XX:+UnlockExperimentalVMOptions",
            "-XX:hashCode=2",
            "-XX:+IgnoreUnrecognizedVMOptions",
        ]
        try:
            port, self._process = launch_gateway(
                classpath=jar, javaopts=options, die_on_exit=True, cwd=str(Path(jar).parent), return_proc=True
            )
        except Exception as error:  # py4j lets through whatever it meets while it reads the port
            raise RuntimeError(f"Java did not start with {jar} ({error}); try `java -version`.") from error
        self.gateway: Any = JavaGateway(gateway_parameters=GatewayParameters(port=port), java_process=self._process)
        self._lock = threading.RLock()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        process: subprocess.Popen[bytes] = self._process
        return process.poll() is None

    @property
    def pid(self) -> int:
        """Of the Java process."""
        return int(self._process.pid)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a Java function, or a Python one that calls several.

        Raises:
            RuntimeError: Java raised, or has ended.
        """
        from py4j.protocol import Py4JError

        with self._lock:
            try:
                return function(*arguments)
            except (Py4JError, OSError) as error:
                what = "raised" if self.alive else f"has ended with status {self._process.poll()}"
                raise RuntimeError(
                    f"The Java process of the extra {self._extra!r} {what}: {error}. Make a new environment; it starts "
                    "another process if need be."
                ) from error


def java(jar: str, extra: str) -> Java:
    """The Java process of an engine, started if this process has none that runs. Raises as `Java`."""
    key = (os.getpid(), jar)
    with _starting:
        machine = _machines.get(key)
        if machine is None or not machine.alive:
            machine = _machines[key] = Java(jar, extra)
        return machine


def missing_extra(package: str, extra: str, error: ImportError) -> ModuleNotFoundError:
    """What to raise where an optional package is not installed."""
    return ModuleNotFoundError(
        f"This environment needs the package {package} ({error}); install it with: pip install 'proxmo_rllib[{extra}]'."
    )
