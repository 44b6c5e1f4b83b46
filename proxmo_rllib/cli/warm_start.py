"""`proxmo warm-start`: make a tiny policy by imitation, to start a training from.

    proxmo warm-start tuned_examples/alfworld_warm_start.py --output policies/tiny

The file defines `warm_start` (a WarmStart). What it makes is a folder that transformers, vLLM and
`.policy(pretrained=...)` load. `proxmo train` makes an example's own warm start by itself, and keeps it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from shutil import copytree

from proxmo_rllib.cli.live import duration
from proxmo_rllib.cli.session import (
    check_address,
    check_machine,
    prepare_environment,
    quiet_terminal,
    requested,
    start_ray,
)
from proxmo_rllib.cli.settings import ExampleError, apply_settings, run_file, split_settings
from proxmo_rllib.machine.folders import make_folder


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo warm-start", description="Make a tiny policy by imitation.")
    parser.add_argument("script", type=Path, metavar="FILE.py", help="a file that defines `warm_start`")
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
        request = requested(warm_start.config.copy(copy_frozen=False).policy(pretrained="made-here"))
        check_machine(request, arguments.address)
    except (ExampleError, ValueError, OSError) as error:
        print(f"proxmo warm-start: {error}", file=sys.stderr)
        return 1
    scratch = Path(tempfile.mkdtemp(prefix="proxmo-warm-start-"))
    with quiet_terminal(scratch / "log.txt") as console:
        import ray

        console.print(f"{warm_start.iterations} iterations; log: {scratch / 'log.txt'}", markup=False)
        start_ray(arguments.address, request)
        try:
            with console.status("imitating"):
                made = warm_start.make(scratch)
        finally:
            ray.shutdown()
        copytree(made, arguments.output)
        minutes = (time.monotonic() - started) / 60
        console.print(f"written: {arguments.output}, after {duration(minutes)}", markup=False)
    return 0
