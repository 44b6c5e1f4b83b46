"""`proxmo warm-start`: make a policy by imitation, to start a training from.

    proxmo warm-start tuned_examples/alfworld_warm_start.py --output policies/tiny
    proxmo warm-start my_warm_start.py pretrained=Qwen/Qwen2.5-0.5B-Instruct lr=1e-5 --output policies/shown

The file defines `warm_start` (a WarmStart). It starts from its config's `pretrained`, or from a tiny model that is made
first. What comes out is a folder that transformers, vLLM and `.policy(pretrained=...)` load. Ctrl-C writes what there
is after the present iteration; after a kill the same command goes on, from FOLDER.making. `proxmo train` makes an
example's own warm start by itself, and keeps it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from proxmo_rllib.cli.guarded import guarded_ray
from proxmo_rllib.cli.interruption import Interruption
from proxmo_rllib.cli.live import duration
from proxmo_rllib.cli.session import (
    check_address,
    check_machine,
    prepare_environment,
    quiet_terminal,
    requested,
)
from proxmo_rllib.cli.settings import ExampleError, apply_settings, run_file, split_settings
from proxmo_rllib.cli.train import TO_BE_MADE, brief
from proxmo_rllib.machine.folders import make_folder
from proxmo_rllib.machine.guard import Guard

if TYPE_CHECKING:
    from proxmo_rllib.imitation import WarmStart
    from proxmo_rllib.imitation.warm_start import CloningProgress


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo warm-start", description="Make a policy by imitation.")
    parser.add_argument("script", type=Path, metavar="FILE.py|NAME", help="a file that defines `warm_start`")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to change in its config")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the policy; must not be there")
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster (default: $RAY_ADDRESS, or this machine)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.output.exists():
        parser.error(f"--output {arguments.output}: it is there already; remove it, or name another")
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Make a policy; see the module's docstring."""
    started = time.monotonic()
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), arguments.address)
    try:
        check_address(arguments.address)
        from proxmo_rllib.imitation import WarmStart

        make_folder(arguments.output.absolute().parent, "the policy's folder", "name another --output")
        warm_start = getattr(run_file(arguments.script), "warm_start", None)
        if not isinstance(warm_start, WarmStart):
            raise ExampleError(f"{arguments.script}: it must define `warm_start`, a proxmo_rllib.imitation.WarmStart.")
        apply_settings(warm_start.config, arguments.settings)
        _check(warm_start)
        request = requested(warm_start.config.copy(copy_frozen=False).policy(pretrained="made-here"))
        check_machine(request, arguments.address)
    except (ExampleError, ValueError, OSError) as error:
        print(f"proxmo warm-start: {error}", file=sys.stderr)
        return 1
    log = Path(tempfile.mkdtemp(prefix="proxmo-warm-start-")) / "log.txt"
    with quiet_terminal(log) as console:
        start = warm_start.config.pretrained or "a tiny model, made now"
        console.print(f"{warm_start.iterations} iterations from {start}; log: {log}", markup=False)
        try:
            with guarded_ray(console, log, arguments.address, request) as (_, guard):
                interrupted = _make(warm_start, arguments.output, console, guard)
        except KeyboardInterrupt:
            console.print("stopped at once; the same command goes on from what was saved last", style="yellow")
            return 130
        except Exception as error:
            logging.getLogger().exception("The warm start failed.")  # to the file; the terminal gets the short story
            console.print(f"proxmo warm-start: {brief(error)}", style="bold red", markup=False)
            console.print(f"the whole story: {log}", markup=False)
            return 1
        minutes = (time.monotonic() - started) / 60
        console.print(f"written: {arguments.output}, after {duration(minutes)}", markup=False)
    return 130 if interrupted else 0


def _check(warm_start: WarmStart) -> None:
    """Finds what can be found wrong without Ray and without weights; see `preflight`."""
    from proxmo_rllib.cli.preflight import dry_run, validate

    config = warm_start.config.copy(copy_frozen=False)
    if config.pretrained is not None:
        validate(config)
    else:
        dry_run(config.policy(pretrained=TO_BE_MADE), policy_exists=False)


def _make(warm_start: WarmStart, output: Path, console: Console, guard: Guard) -> bool:
    """Makes the policy and says how far it is; returns whether somebody ended it early."""
    with console.status("starting") as status, Interruption(status.update, guard) as interruption:

        def watch(progress: CloningProgress) -> None:
            if progress.loss is None:
                interruption.be_patient()  # from now on there is something to save
            if console.is_terminal:
                status.update(describe(progress))
            else:
                console.print(describe(progress), markup=False)

        warm_start.make(output.absolute(), watch, stop=lambda: interruption.reason() is not None)
    if reason := interruption.reason():
        console.print(f"ended early: {reason}", markup=False)
    return interruption.reason() is not None


def describe(progress: CloningProgress) -> str:
    """How far it is, in a line: "iteration 12/98, loss 0.431, 6 min left"."""
    parts = [f"iteration {progress.iteration}/{progress.iterations}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.success is not None:
        parts.append(f"success {progress.success:.1%}")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left / 60)} left")
    return ", ".join(parts)
