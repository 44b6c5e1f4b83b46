"""A run on storage, or a checkpoint of it, brought to this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from proxmo_rllib.checkpoint_format import MANIFEST, CheckpointError, check_whole
from proxmo_rllib.machine.disk import in_mib
from proxmo_rllib.storage.place import Place, StorageError

CHECKPOINTS, LATEST = "checkpoints", "latest"
RUN = "run.json"
_PREFIX = "iteration_"


def run_of(place: Place) -> tuple[Place, str | None]:
    """The run that a place belongs to, and the name of the checkpoint, where the place is one.

    Raises:
        StorageError: no run is there.
    """
    if has_run(place):
        return place, None
    above = place.above()
    if above.name == CHECKPOINTS and has_run(above.above()):
        return above.above(), None if place.name == LATEST else place.name
    raise StorageError(f"{place.uri}: there is no run, nor a checkpoint of one: no {RUN} is there.")


def has_run(place: Place) -> bool:
    """Whether a run was begun there."""
    return place.below(RUN).read() is not None


def checkpoints_at(run: Place) -> list[str]:
    """Names of the checkpoints that a run may be gone on with, the first first: the latest, and those before it.

    Those that were not sent to their end are left out.
    """
    place = run.below(CHECKPOINTS)
    there = {PurePosixPath(name).parts[0] for name in place.files() if name.endswith(f"/{MANIFEST}")}
    latest = (place.below(LATEST).read() or b"").decode().strip()
    found = sorted((name for name in there if name.startswith(_PREFIX)), key=iteration_in, reverse=True)
    if not latest:
        return found
    limit = iteration_in(latest)
    return sorted(
        (name for name in found if iteration_in(name) <= limit),
        key=lambda name: (name == latest, iteration_in(name)),
        reverse=True,
    )


def iteration_in(name: str) -> int:
    """The iteration of a checkpoint, by its name; -1 if it has none."""
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() else -1


def fetch_run(
    run: Place,
    folder: Path,
    *,
    checkpoint: str | None = None,
    parts: tuple[str, ...] = ("",),
    say: Callable[[str], object] = lambda text: None,
) -> Path | None:
    """Brings a run's files and one of its checkpoints here.

    Args:
        run: its place.
        folder: made if it is not there.
        checkpoint: its name; None for the latest that is whole.
        parts: how the names of the checkpoint's files begin that are needed; all by default.
        say: is told what comes, and which checkpoints are left aside as they are not whole.

    Returns:
        The checkpoint's folder here; None if the run has none.

    Raises:
        StorageError: it cannot be read.
        CheckpointError: the checkpoint that was asked for is not whole.
    """
    fetch_files(run, folder)
    for name in [checkpoint] if checkpoint else checkpoints_at(run):
        try:
            found = fetch_checkpoint(run.below(CHECKPOINTS).below(name), folder / CHECKPOINTS / name, parts, say)
        except CheckpointError as error:
            if checkpoint:
                raise
            say(f"left aside: {error}")
            continue
        link = folder / CHECKPOINTS / LATEST
        link.unlink(missing_ok=True)
        os.symlink(name, link)
        return found
    return None


def fetch_files(run: Place, folder: Path) -> None:
    """Brings what is no checkpoint of a run here: metrics, the record of episodes, settings.

    Raises:
        StorageError: it cannot be read.
    """
    for name in run.files():
        if PurePosixPath(name).parts[0] != CHECKPOINTS:
            run.below(name).download(folder / name)


def fetch_checkpoint(place: Place, target: Path, parts: tuple[str, ...], say: Callable[[str], object]) -> Path:
    """Brings a checkpoint here, of a run or of a trial.

    Args:
        place: of the checkpoint.
        target: its folder here.
        parts: see `fetch_run`.
        say: is told what comes.

    Returns:
        The folder.

    Raises:
        StorageError: it cannot be read.
        CheckpointError: it is not whole.
    """
    files = {file: size for file, size in place.files().items() if file.startswith(parts) or file == MANIFEST}
    say(f"fetching {place.uri}, {in_mib(sum(files.values()))}")
    for file in sorted(files, key=lambda file: file == MANIFEST):
        place.below(file).download(target / file)
    try:
        check_whole(target, parts)
    except CheckpointError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise CheckpointError(str(error).replace(str(target), place.uri)) from error
    return target
