"""Runs that are gone on with: from which checkpoint, in which folder, and what to type."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from proxmo_rllib.cli.settings import Example
from proxmo_rllib.cli.stored import StoredRun, note
from proxmo_rllib.machine.folders import make_folder

if TYPE_CHECKING:
    from proxmo_rllib.training_run.folder import RunFolder

# RLlib keeps a training's state as pickles.
TRUSTS = "resuming trusts {}: loading it runs what whoever wrote it put in; `proxmo eval` and `proxmo play` run nothing"


def resumed(arguments: argparse.Namespace) -> tuple[Path | None, dict[str, str]]:
    """The checkpoint to go on from, and the settings that its run was started with."""
    from proxmo_rllib.training_run.folder import RunFolder, checkpoint_of

    if arguments.resume:
        checkpoint: Path | None = checkpoint_of(arguments.resume)
        folder = RunFolder.of(arguments.resume)
    elif arguments.auto_resume and (arguments.run_dir / "run.json").is_file():
        folder = RunFolder(arguments.run_dir)
        checkpoint = folder.saved.newest_whole(broken=lambda text: print(f"left aside: {text}", file=sys.stderr))
    else:
        return None, {}
    return checkpoint, folder.read_json("run.json").get("settings", {})


def run_folder(
    arguments: argparse.Namespace, example: Example, settings: dict[str, str], stored: StoredRun | None = None
) -> RunFolder:
    """The run's folder: the one that is gone on with, or a new one. Notes in it how the run was started.

    Raises:
        ValueError: another run is there already.
        OSError: it cannot be written.
    """
    from proxmo_rllib.training_run.folder import RunFolder

    if arguments.resume:
        folder = RunFolder.of(arguments.resume)
        make_folder(folder.path, "gone on with", "copy the run to a folder that can")
    else:
        name = f"{example.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = arguments.run_dir or Path(os.environ.get("PROXMO_RUNS", "runs")) / name  # a URI has become a run_dir
        folder = RunFolder(make_folder(path, "the run's folder", "name another with --run-dir or PROXMO_RUNS"))
        if folder.has_run() and not arguments.auto_resume:
            raise ValueError(
                f"--run-dir {path}: a run is there already; go on with it (--resume {path}, or --auto-resume), or name "
                "another."
            )
    # Absolute: whoever reads the run elsewhere needs what lies beside the file.
    started = {"file": str(example.path.absolute()), "settings": settings}
    folder.write_json("run.json", folder.read_json("run.json") | started)
    if stored is not None:
        note(stored, folder)
    return folder


def resume_command(script: Path, folder: Path, stored: StoredRun | None = None) -> str:
    """What to type to go on with a run."""
    if stored is not None:
        return shlex.join(["proxmo", "train", str(script), "--resume", str(stored.resumable)])
    near = Path(os.path.relpath(folder))
    shown = folder if near.parts[:1] == ("..",) else near
    return shlex.join(["proxmo", "train", str(script), "--resume", str(shown)])


def say_resume(console: Console, script: Path, folder: RunFolder, stored: StoredRun | None = None) -> None:
    """Says how to go on with a run that did not end."""
    if (newest := folder.saved.newest_whole()) is not None:
        console.print(f"go on from {newest.name} with: {resume_command(script, folder.path, stored)}", markup=False)
    else:
        console.print("there is no checkpoint to go on from")
