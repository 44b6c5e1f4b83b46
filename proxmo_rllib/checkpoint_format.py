"""What makes a checkpoint whole: a list of its files, written last, with the versions that wrote it.

proxmo_checkpoint.json
    {"format": 1, "written_by": {"proxmo_rllib": "0.1.0", "ray": ...}, "written_with": {"num_env_runners": 2, ...},
     "files": {"algorithm_state.pkl": 8290, ...}}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxmo_rllib import __version__
from proxmo_rllib.machine.disk import (
    DiskError,
    disk_cause,
    files_of,
    in_mib,
    settle,
    size_of,
    why_not_written,
    write_whole,
)

# To be raised whenever what is written can no longer be read by what was there before.
FORMAT = 1
MANIFEST = "proxmo_checkpoint.json"
_PARTS = ("written_by", "written_with", "files")
_NAMED = 5


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; says which, why, and the remedy."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written."""

    written_by: dict[str, str]  # version of each package
    written_with: dict[str, Any]  # settings on which the last digits of a resumed run depend
    files: dict[str, int]  # bytes of each file, by its path in the checkpoint


def write_manifest(checkpoint: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Declares a checkpoint whole: all that is in it is on the disk, and listed.

    Args:
        checkpoint: its folder.
        settings: on which the last digits of a resumed run depend.

    Raises:
        OSError: the disk does not take it.
    """
    settle(checkpoint)
    files = {name: size for name, size in files_of(checkpoint) if name != MANIFEST}
    content = {"format": FORMAT, "written_by": _versions(), "written_with": dict(settings or {}), "files": files}
    write_whole(checkpoint / MANIFEST, [json.dumps(content, indent=2) + "\n"])


def check_whole(checkpoint: Path, parts: tuple[str, ...] = ("",)) -> Manifest:
    """Makes sure that a checkpoint can be read and that all of it is there.

    Args:
        checkpoint: its folder.
        parts: how the names of the files begin that are read of it; all by default.

    Raises:
        CheckpointError: it was not written to its end, a newer version wrote it, or files are missing or cut.
    """
    path = checkpoint / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{checkpoint} is no whole checkpoint: it has no {MANIFEST}, which is written last. Take an earlier one."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, manifest = content["format"], Manifest(**{name: dict(content[name]) for name in _PARTS})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}). Take an earlier one.") from error
    if found != FORMAT:
        raise CheckpointError(
            f"{checkpoint} is of format {found!r}, written by proxmo_rllib "
            f"{manifest.written_by.get('proxmo_rllib', 'unknown')}; this is {_versions()['proxmo_rllib']}, which reads "
            f"format {FORMAT}. Install the version that wrote it."
        )
    damaged = [what for name, what in _damaged(checkpoint, manifest) if name.startswith(parts)]
    if damaged:
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise CheckpointError(
            f"{checkpoint} is not whole: {'; '.join(damaged[:_NAMED])}{more}. Copy it again, or take an earlier one."
        )
    return manifest


def _damaged(checkpoint: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Files that are not as they were written, and what is wrong with each."""
    there = dict(files_of(checkpoint))
    for name, size in manifest.files.items():
        if name not in there:
            yield name, f"{name} is missing"
        elif there[name] != size:
            yield name, f"{name} has {there[name]} bytes instead of {size}"


def describe_changes(manifest: Manifest, settings: Mapping[str, Any]) -> str | None:
    """What is no longer as it was when a checkpoint was written, in words; None if all is.

    Args:
        manifest: of the checkpoint.
        settings: of the run that goes on, as `write_manifest` takes them.
    """
    pairs = [(manifest.written_by, _versions()), (manifest.written_with, settings)]
    changed = [
        f"{name} {was} (now {now[name]})"
        for then, now in pairs
        for name, was in then.items()
        if name in now and now[name] != was
    ]
    return ", ".join(changed) or None


def _versions() -> dict[str, str]:
    return {"proxmo_rllib": __version__} | {name: version(name) for name in ("ray", "torch", "transformers")}


@contextmanager
def whole_or_nothing(checkpoint: Path, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within it a checkpoint is written; after it the checkpoint is whole, or, after an error, gone.

    Args:
        checkpoint: its folder. One that was there before and had something in it is left where it is.
        settings: see `write_manifest`.

    Raises:
        DiskError: the disk did not take it; says which, what it takes, and what is free.
    """
    there = checkpoint.is_dir() and any(checkpoint.iterdir())
    try:
        (checkpoint / MANIFEST).unlink(missing_ok=True)  # of an older one: from here on it is not whole
        yield
        write_manifest(checkpoint, settings)
    except BaseException as error:
        written = size_of(checkpoint) if checkpoint.is_dir() else 0
        if not there:
            shutil.rmtree(checkpoint, ignore_errors=True)
        cause = disk_cause(error)
        if cause is None or isinstance(error, DiskError):
            raise
        why = why_not_written(cause, _existing(checkpoint), f"more than {in_mib(written)}")
        raise DiskError(cause.errno, f"{checkpoint} could not be written: {why}.") from error


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
