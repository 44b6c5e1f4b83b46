"""Ray for a command: the cluster that is there, or one of its own on this machine; and a quiet terminal.

`prepare_environment` has to be called before ray, transformers or vllm are imported: they read it once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, ConsoleDimensions

from proxmo_rllib import faults
from proxmo_rllib.cli.examples import refuse_other_packages_here, runtime_env
from proxmo_rllib.machine.disk import open_log

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

    from proxmo_rllib.config import ProxMOConfig

_ANSWER_S = 5.0
_OURS = ("proxmo_rllib", "env_wrappers")


def prepare_environment(environment: MutableMapping[str, str], home: Path, address: str | None) -> None:
    """Settings that a run should have unless the user set them.

    Args:
        environment: of this process.
        home: of the user.
        address: of a Ray cluster, if the user named one.
    """
    defaults = {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name, value in defaults.items():
        environment.setdefault(name, value)
    # It warns at every start that RLlib's present API is in use.
    logging.getLogger("ray.rllib.algorithms.algorithm_config").setLevel(logging.ERROR)
    if (address or environment.get("RAY_ADDRESS") or "local") == "local":
        return  # a cluster of one's own gets a token of its own when it is started
    from proxmo_rllib.jobs.client import find_token

    find_token(environment, home)


def cluster_address(address: str | None) -> str | None:
    """The cluster that a run goes to: the one that was said, else RAY_ADDRESS; None for one of its own, here."""
    said = address or os.environ.get("RAY_ADDRESS")
    return None if said == "local" else said or None


def start_ray(
    address: str | None, request: PlacementGroupFactory, *, in_trials: bool = False, log_to_driver: bool = True
) -> str:
    """Connects to the cluster that is there, or starts one on this machine, and makes sure that it can carry the run.

    Args:
        address: of a cluster that answers (`check_address`); None for RAY_ADDRESS, or a cluster of one's own.
        request: what the run reserves, its own process first.
        in_trials: whether that process is a trial of Ray Tune, and not this one.
        log_to_driver: whether the other processes' output comes out of this one.

    Returns:
        Where it runs, in words.

    Raises:
        ConnectionError: what answers there is no Ray cluster that takes us.
        ResourcesError: it never has what the run reserves.
        FolderError: Ray's folder on this machine cannot be used.
    """
    import ray

    from proxmo_rllib.machine.resources import check_in_cluster, start_on_this_machine

    address = cluster_address(address)
    if address is None:
        start_on_this_machine(request.bundles, log_to_driver, in_trial=in_trials)
        return "this machine"
    try:
        ray.init(
            address=address,
            logging_level=logging.WARNING,
            log_to_driver=log_to_driver,
            runtime_env=runtime_env(),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConnectionError(_no_cluster(address, first)) from error
    try:
        check_in_cluster(request, in_trial=in_trials)
    except ValueError:
        ray.shutdown()
        raise
    return f"the cluster at {address}"


def check_address(address: str | None) -> None:
    """Finds out within seconds whether anybody listens at the address of a cluster.

    Args:
        address: of a cluster; None for RAY_ADDRESS, or no cluster.

    Raises:
        ConnectionError: nobody does, or it is no address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address or address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise ConnectionError(f"{address} is a job server; `proxmo submit --address {address}` sends it a job.")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ConnectionError(f"{address!r} is no address of a Ray cluster; write HOST:PORT, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(_no_cluster(address, str(error))) from error


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"No Ray cluster answers at {address}: {reason} Start one there (ray start --head), say another --address, or "
        "unset RAY_ADDRESS to run on this machine alone."
    )


def requested(config: ProxMOConfig) -> PlacementGroupFactory:
    """What a run reserves: of the algorithm, its runners, learners and engines."""
    return config.algo_class.resource_request(config)


def engines_only(config: ProxMOConfig) -> PlacementGroupFactory:
    """What engines without a learner reserve; the episodes are played in this process."""
    from ray.tune import PlacementGroupFactory

    from proxmo_rllib.algorithm import ProxMO
    from proxmo_rllib.inference.pool import InferencePool

    engines = InferencePool.resource_bundles(ProxMO.engine_config(config), config.num_engines)
    return PlacementGroupFactory([{"CPU": 1.0}, *engines], strategy=config.placement_strategy)


def check_machine(request: PlacementGroupFactory, address: str | None, *, in_trials: bool = False) -> None:
    """Before anything starts: whether this machine can carry a run, where it has to.

    Args:
        request: what the run reserves.
        address: of a cluster; None for RAY_ADDRESS, or no cluster. A cluster is asked when the run connects to it.
        in_trials: whether the run's own process is a trial of Ray Tune, and not this one.

    Raises:
        ResourcesError: it cannot.
        FolderError: Ray's folder cannot be used.
        ValueError: the present folder has a package of a name of ours.
    """
    from proxmo_rllib.machine.folders import check_ray_folder
    from proxmo_rllib.machine.resources import check_on_this_machine

    refuse_other_packages_here()
    if cluster_address(address) is None:
        check_on_this_machine(request.bundles, in_trial=in_trials)
        check_ray_folder(os.environ)


@contextlib.contextmanager
def quiet_terminal(log: Path) -> Iterator[Console]:
    """Sends what libraries say to a file, and leaves the terminal to the command.

    File descriptors 1 and 2 are redirected, since Ray and vLLM also write from C++. Warnings of this project stay on
    the terminal.

    Args:
        log: appended to.

    Yields:
        A console that writes to standard output as it was.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    kept = (sys.stdout, sys.stderr)
    with open_log(log) as file, os.fdopen(saved[0], "w", encoding="utf-8") as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = file, file
        console = _TerminalConsole(file=terminal, highlight=False, soft_wrap=not terminal.isatty())
        handlers = _route_logging(file, console)
        try:
            yield console
        finally:
            for logger, handler in handlers:
                logger.removeHandler(handler)
            sys.stdout, sys.stderr = kept
            terminal.flush()
            for number, fd in enumerate(saved, start=1):
                os.dup2(fd, number)
            os.close(saved[1])


class _TerminalConsole(Console):
    """As wide as the terminal it writes to; rich asks standard input and output, which need not be that terminal.

    A live view that takes the terminal for wider than it is draws each table below the one before.
    """

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """Columns and rows."""
        if not self.is_terminal:
            return super().size
        columns, rows = os.get_terminal_size(self.file.fileno())
        return ConsoleDimensions(columns, rows) if columns and rows else super().size


class _ConsoleHandler(logging.Handler):
    """Prints above a live view, which a plain stream would tear."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said or record.name == faults.__name__:  # an event that comes again is another one
            self._said.add(text)
            self._console.print(f"{record.levelname.lower()}: {text}", style="yellow", markup=False)


def _route_logging(file: TextIO, console: Console) -> list[tuple[logging.Logger, logging.Handler]]:
    logging.captureWarnings(True)
    everything = logging.StreamHandler(file)
    everything.setLevel(logging.INFO)
    everything.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[tuple[logging.Logger, logging.Handler]] = [(logging.getLogger(), everything)]
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
        handlers.append((logging.getLogger(name), _ConsoleHandler(console)))
    for logger, handler in handlers:
        logger.addHandler(handler)
    return handlers
