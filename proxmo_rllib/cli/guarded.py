"""Ray for a command, under guard: whatever hangs or dies, the command ends, with a word and with all its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from proxmo_rllib.cli.interruption import Interruption
from proxmo_rllib.cli.session import cluster_address, start_ray
from proxmo_rllib.machine.guard import Guard

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory


def start_guarded(guard: Guard, address: str | None, request: PlacementGroupFactory, **options: Any) -> str:
    """As `start_ray`, whose own processes the guard watches, if it starts any.

    Raises:
        KeyboardInterrupt: a signal came meanwhile.
    """
    try:
        where = start_ray(address, request, **options)
    except SystemExit:  # Ray's own answer to a SIGTERM while it starts
        raise KeyboardInterrupt from None
    if cluster_address(address) is None:
        guard.watch_own_ray()
    return where


@contextlib.contextmanager
def guarded_ray(
    console: Console, log: Path, address: str | None, request: PlacementGroupFactory, **options: Any
) -> Iterator[tuple[str, Guard]]:
    """Starts Ray, or joins it, and leaves it at the end. A signal within is a KeyboardInterrupt, the second the end.

    Args:
        console: where the user reads.
        log: file that is told too.
        address: see `start_ray`, as for the request and the options.
        request: what is reserved.
        options: of `start_ray`.

    Yields:
        Where it runs, in words, and the guard.
    """
    with Guard(console.file.fileno(), log) as guard, Interruption(console.print, guard) as interruption:
        import ray

        try:
            where = start_guarded(guard, address, request, **options)
            interruption.listen()
            yield where, guard
        finally:
            with guard.deadline("stopping Ray"):
                ray.shutdown()
            interruption.listen()  # Ray takes the handler of SIGTERM along when it goes
