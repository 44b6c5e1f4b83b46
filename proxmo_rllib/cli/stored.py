"""Words of the command line that name a run on storage (`s3://bucket/runs/x`): a copy of it on this machine."""

from __future__ import annotations

import argparse
import atexit
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxmo_rllib.storage.place import StorageError, Uri, is_uri, join, open_place

if TYPE_CHECKING:
    from proxmo_rllib.storage.mirror import Mirror
    from proxmo_rllib.training_run.folder import RunFolder


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run whose place is on storage, and that works in a folder of this machine.

    Attributes:
        folder: on this machine.
        mirror: copies it to the place.
        new: whether this process made the folder.
    """

    folder: Path
    mirror: Mirror
    new: bool = True

    @property
    def uri(self) -> str:
        """Of the run."""
        return self.mirror.place.uri

    @property
    def resumable(self) -> str | Path:
        """What the run can be gone on with: its place, or its folder here, where the place has not all of it."""
        return self.uri if self.mirror.lacks is None else self.folder

    def log(self) -> str:
        """Where the run's log is, with all that is in it now."""
        self.mirror.send()
        return join(self.uri, "log.txt") if self.mirror.lacks is None else str(self.folder / "log.txt")

    def say_end(self, say: Callable[[str], object]) -> None:
        """Says where the run is, at its end."""
        if self.mirror.lacks is None:
            say(f"the run is at {self.uri}")
        else:
            say(f"the run is not all at {self.uri}, but in {self.folder}: {self.mirror.lacks}")

    def clean_up(self) -> None:
        """Removes the folder, if the place has all of the run, or the run did not come as far as to begin."""
        if self.mirror.lacks is None or (self.new and not self.mirror.began):
            shutil.rmtree(self.folder.parent, ignore_errors=True)


def working_folder(name: str) -> Path:
    """A new folder for a run whose place is on storage; it is not made."""
    return working_folders() / secrets.token_hex(8) / name


def working_folders() -> Path:
    """Where such folders are: in $PROXMO_CACHE, or ~/.cache/proxmo_rllib."""
    cache = Path(os.environ.get("PROXMO_CACHE") or "~/.cache/proxmo_rllib").expanduser()
    return cache.absolute() / "runs"


def stored_run(arguments: argparse.Namespace) -> StoredRun | None:
    """The run on storage that a command line means, if it means one; puts its folder in the place of the URIs.

    When the process ends, the folder is removed, unless it has what the place has not.

    Args:
        arguments: of `proxmo train`; `run_dir` and `resume` are paths of this machine afterwards.

    Raises:
        StorageError: the storage cannot be used.
        ValueError: a run is there already.
    """
    runs = os.environ.get("PROXMO_RUNS", "")
    if arguments.resume is None and arguments.run_dir is None and is_uri(runs):
        arguments.run_dir = Uri(join(runs, f"{Path(arguments.script).stem}-{time.strftime('%Y%m%d-%H%M%S')}"))
    if isinstance(arguments.resume, Uri):
        stored: StoredRun | None = _resumed(arguments)
    elif isinstance(arguments.run_dir, Uri):
        stored = _begun(arguments)
    elif arguments.resume is not None:
        stored = _left_here(arguments.resume, arguments.keep_checkpoints)
    else:
        stored = None
    if stored is not None:
        atexit.register(stored.clean_up)
    return stored


def _resumed(arguments: argparse.Namespace) -> StoredRun:
    from proxmo_rllib.storage.fetch import fetch_run, run_of
    from proxmo_rllib.storage.mirror import Mirror

    place, checkpoint = run_of(open_place(arguments.resume))
    place.check_writable()
    folder = working_folder(place.name)
    found = fetch_run(place, folder, checkpoint=checkpoint, say=_say)
    if found is None:
        raise StorageError(f"{place.uri} has no whole checkpoint to resume from: the run ended before its first.")
    arguments.resume = found
    return StoredRun(folder, Mirror(place, folder, arguments.keep_checkpoints, fetched=True))


def _begun(arguments: argparse.Namespace) -> StoredRun:
    from proxmo_rllib.storage.fetch import fetch_run, has_run
    from proxmo_rllib.storage.mirror import Mirror

    place = open_place(arguments.run_dir)
    place.check_writable()
    folder = working_folder(place.name)
    there = has_run(place)
    if there and not arguments.auto_resume:
        raise ValueError(
            f"--run-dir {place.uri}: a run is there already; go on with it (--resume {place.uri}, or --auto-resume), "
            "or name another."
        )
    if there:
        fetch_run(place, folder, say=_say)
    arguments.run_dir = folder
    return StoredRun(folder, Mirror(place, folder, arguments.keep_checkpoints, fetched=there))


def _left_here(path: Path, keep: int) -> StoredRun | None:
    """A run that was not sent to its end, and that is gone on with from its working folder."""
    from proxmo_rllib.storage.mirror import STORED, Mirror
    from proxmo_rllib.training_run.folder import RunFolder

    if working_folders() not in path.expanduser().absolute().parents:
        return None
    run = RunFolder.of(path)
    uri = run.read_json("run.json").get(STORED)
    if not uri:
        raise ValueError(f"{run.path}: its run.json does not say where its place is; copy it to a folder of your own.")
    place = open_place(uri)
    place.check_writable()
    return StoredRun(run.path, Mirror(place, run.path, keep), new=False)


def note(stored: StoredRun, folder: RunFolder) -> None:
    """Notes in a run's folder where its place is."""
    from proxmo_rllib.storage.mirror import STORED

    folder.write_json("run.json", folder.read_json("run.json") | {STORED: stored.uri})


def here(run: Path | Uri, parts: tuple[str, ...] | None = None) -> Path:
    """A run, or a checkpoint of one, on this machine: itself, or a copy of what is on storage.

    Args:
        run: what was named.
        parts: how the names of a checkpoint's files begin that are needed; None for none of a checkpoint.

    Raises:
        StorageError: it cannot be read.
        CheckpointError: the checkpoint is not whole.
    """
    if not isinstance(run, Uri):
        return run
    from proxmo_rllib.checkpoint_format import MANIFEST
    from proxmo_rllib.storage.fetch import fetch_checkpoint, fetch_files, fetch_run, run_of

    place = open_place(run)
    folder = working_folder(place.name)
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    if parts is not None and place.below(MANIFEST).read() is not None:
        return fetch_checkpoint(place, folder, parts, _say)
    place, _ = run_of(place)
    if parts is None:
        fetch_files(place, folder)
        return folder
    found = fetch_run(place, folder, parts=parts, say=_say)
    if found is None:
        raise StorageError(f"{place.uri} has no whole checkpoint.")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr)
