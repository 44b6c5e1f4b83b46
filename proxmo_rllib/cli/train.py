"""`proxmo train`: run a tuned example.

    proxmo train quickstart
    proxmo train tuned_examples/quickstart.py seed=1 lr=1e-4 env_config.max_receptacles=6 --iterations 40
    proxmo train tuned_examples/quickstart.py --resume runs/quickstart-20260102-030405
    proxmo train my.py --run-dir runs/mine --auto-resume
    proxmo train tuned_examples/alfworld_qwen2_5_1_5b.py --dry-run

An installed example is named without its folder, and a file's neighbours can be imported, by Ray's workers too.
Everything that can be found wrong without Ray and without weights is, before either is loaded. The last line on
standard output is one JSON object that says how the run ended. Ctrl-C ends it after the present iteration, with a
checkpoint; so does SIGTERM, but within its period of grace. A second one ends everything at once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from proxmo_rllib import quiet
from proxmo_rllib.cli import monitoring
from proxmo_rllib.cli.examples import list_examples
from proxmo_rllib.cli.guarded import start_guarded
from proxmo_rllib.cli.interruption import Interruption
from proxmo_rllib.cli.resumption import TRUSTS, resume_command, resumed, run_folder, say_resume
from proxmo_rllib.cli.session import (
    check_address,
    check_machine,
    prepare_environment,
    quiet_terminal,
    requested,
)
from proxmo_rllib.cli.settings import Example, ExampleError, apply_settings, load_example, split_settings
from proxmo_rllib.cli.stored import StoredRun, stored_run
from proxmo_rllib.machine.guard import SHUTDOWN_S, Guard
from proxmo_rllib.storage.place import path_or_uri
from proxmo_rllib.tuning.search_spaces import search_spaces

if TYPE_CHECKING:
    from proxmo_rllib.training_run.folder import RunFolder
    from proxmo_rllib.training_run.loop import Outcome

# In the place of a policy that a warm start will make.
TO_BE_MADE = "to-be-made-by-the-warm-start"
# Errors of a config, or of what it names: said in a line, without a traceback.
REFUSALS = (ExampleError, ValueError, OSError)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo train",
        description="Run a tuned example: a Python file that defines `config`, and may define `stop`.",
        epilog="Ctrl-C saves and stops after the present iteration; a second one stops at once.",
    )
    parser.add_argument("script", type=Path, metavar="FILE.py|NAME", help=f"a file of yours, or {list_examples()}")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to change in its config")
    parser.add_argument("--iterations", type=int, help="stop after so many (default: the file's `stop`)")
    parser.add_argument(
        "--run-dir",
        type=path_or_uri,
        metavar="DIR|URI",
        help="the run's folder, or s3://... (default: a new one in $PROXMO_RUNS, or runs/)",
    )
    parser.add_argument(
        "--resume", type=path_or_uri, metavar="RUN", help="go on with a run: its folder or URI, or a checkpoint in it"
    )
    parser.add_argument("--checkpoint-every", type=int, default=10, metavar="N", help="iterations (default: 10)")
    parser.add_argument("--keep-checkpoints", type=int, default=3, metavar="N", help="the newest (default: 3)")
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on with the run in --run-dir from its newest whole checkpoint; begin it, where there is none",
    )
    parser.add_argument(
        "--on-failed-save",
        choices=("go-on", "stop"),
        default="go-on",
        help="when the disk does not take a checkpoint: go on to the next, or stop with the last one (default: go-on)",
    )
    parser.add_argument(
        "--grace-period",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds between SIGTERM and the end, within which the run saves; 0: no bound (default: 30)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster (default: $RAY_ADDRESS, or this machine)")
    monitoring.add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything but the weights, and train nothing")
    parser.add_argument("--verbose", action="store_true", help="leave what Ray, RLlib and vLLM say on the terminal")
    # Settings may stand between options.
    arguments = parser.parse_intermixed_args(argv)
    for name in ("iterations", "checkpoint_every", "keep_checkpoints"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: it is at least 1")
    if not 0 <= arguments.grace_period < math.inf:
        parser.error(f"--grace-period {arguments.grace_period:g}: seconds, 0 or more")
    if arguments.auto_resume and not arguments.run_dir:
        parser.error("--auto-resume looks for the run in --run-dir DIR: say it too")
    if arguments.resume and arguments.run_dir:
        parser.error("--run-dir goes with a new run, and --resume with an old one: say one of them")
    arguments.monitoring = monitoring.read_options(parser, arguments)
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Train; see the module's docstring. Returns 0, 1 for an error or an end that is not saved, 130 if interrupted."""
    started = time.monotonic()
    arguments = parse(argv)
    if arguments.verbose:
        os.environ[quiet.VERBOSE] = "1"
    prepare_environment(os.environ, Path.home(), arguments.address)
    try:
        check_address(arguments.address)
        stored = stored_run(arguments)
        checkpoint, recorded = resumed(arguments)
        example = load_example(arguments.script)
        settings = recorded | arguments.settings
        apply_settings(example.config, settings)
        if checkpoint is not None:
            from proxmo_rllib import settings_file

            settings_file.check_same_adapters(checkpoint, example.config)
        if spaces := search_spaces(example.config):
            raise ExampleError(
                f"{example.path}: it searches {', '.join(spaces)}; say `proxmo tune {example.path}`, or fix each, such "
                f"as {next(iter(spaces)).replace('/', '.')}=..."
            )
        if example.warm_start is not None:
            example = replace(example, warm_start=example.warm_start.in_world_of(example.config))
        if arguments.iterations:
            example = replace(example, stop=replace(example.stop, iterations=arguments.iterations))
        policy_exists = find_policy(example)
        if arguments.dry_run:
            return _dry_run(example, policy_exists, arguments.address)
        check_before_ray(example, policy_exists)
        check_machine(requested(example.config), arguments.address)
        folder = run_folder(arguments, example, settings, stored)
    except REFUSALS as error:
        print(f"proxmo train: {error}", file=sys.stderr)
        return 1
    with _terminal(arguments.verbose, folder.log) as console:
        try:
            outcome = _train(arguments, example, folder, checkpoint, console, started, policy_exists, stored)
        except KeyboardInterrupt:
            console.print("stopped at once", style="yellow")
            say_resume(console, arguments.script, folder, stored)
            return 130
        except Exception as error:
            logging.getLogger().exception("The run failed.")  # to the file; the terminal gets the short story
            console.print(f"proxmo train: {brief(error)}", style="bold red", markup=False)
            console.print(f"the whole story: {folder.log if stored is None else stored.log()}", markup=False)
            say_resume(console, arguments.script, folder, stored)
            return 1
        _say_end(console, arguments.script, folder, outcome, stored)
    # On a terminal it fills some lines, and they are not the table's.
    print("\n" * sys.stdout.isatty() + json.dumps(outcome.summary(example.config)), flush=True)
    return exit_code(outcome) if stored is None or stored.mirror.lacks is None else 1


def find_policy(example: Example) -> bool:
    """Puts a policy into the config that names none: the one of its warm start, if that was made before.

    Returns:
        Whether there is a policy. If not, the config names one that the warm start has yet to make.
    """
    config = example.config
    if config.pretrained is not None or example.warm_start is None:
        return True  # one that nobody names is the config's to refuse
    made = example.warm_start.cached()
    config.policy(pretrained=made or TO_BE_MADE)
    return made is not None


def check_before_ray(example: Example, policy_exists: bool) -> None:
    """Finds what can be found wrong without Ray and weights.

    Raises:
        ValueError: naming the setting, its value and the remedy.
        FileNotFoundError: data that the environment needs is not there.
    """
    from proxmo_rllib.cli.preflight import dry_run, validate

    if policy_exists:
        validate(example.config)
    else:
        dry_run(example.config, policy_exists)


def _dry_run(example: Example, policy_exists: bool, address: str | None) -> int:
    """Shows what was found; 1 if the run would be refused."""
    from proxmo_rllib.cli.plan import print_plan
    from proxmo_rllib.cli.preflight import REFUSED, check_plan, check_resources, dry_run, print_dry_run

    checks, prompt = dry_run(example.config, policy_exists)
    planned, plan = check_plan(example.config, address, policy_exists)
    checks += [check_resources(example.config, address), *planned]
    console = Console()
    print_dry_run(console, checks, prompt)
    if plan is not None:
        print_plan(console, plan)
    return 1 if any(check.status == REFUSED for check in checks) else 0


def _train(
    arguments: argparse.Namespace,
    example: Example,
    folder: RunFolder,
    checkpoint: Path | None,
    console: Console,
    started: float,
    policy_exists: bool,
    stored: StoredRun | None,
) -> Outcome:
    from proxmo_rllib.cli.live import make_view
    from proxmo_rllib.cli.preflight import validate
    from proxmo_rllib.cli.warm_start import describe as describe_cloning
    from proxmo_rllib.machine.resources import describe
    from proxmo_rllib.monitoring.ray_metrics import RayMetrics
    from proxmo_rllib.training_run.checkpoints import LATEST
    from proxmo_rllib.training_run.grace import Grace
    from proxmo_rllib.training_run.loop import Observer, Run

    watched = monitoring.recalled(arguments.monitoring, folder)
    config = watched.measured_by(example.config.debugging(run_folder=str(folder.path)))
    settings = folder.write_config(config)
    console.print(f"run folder: {folder.path if stored is None else stored.uri}", markup=False)
    if checkpoint is not None:
        console.print(TRUSTS.format(checkpoint.name), markup=False)
    request = requested(config)
    view = make_view(console, example.stop, folder.path.name, settings)
    observers: list[Observer] = [view]
    grace = Grace(arguments.grace_period)
    how = f"go on with: {resume_command(arguments.script, folder.path, stored)}"
    with (
        Guard(console.file.fileno(), folder.log, folder.checkpoints / LATEST, how) as guard,
        Interruption(view.status, guard, grace.begin) as interruption,
    ):
        where = start_guarded(guard, arguments.address, request)
        interruption.listen()
        console.print(f"on {where}, reserving {describe(request.required_resources)}", markup=False)

        def stopping(what: str, stop: Callable[[], object], seconds: float = SHUTDOWN_S) -> None:
            with guard.deadline(what, grace.left(seconds)):
                stop()
            interruption.listen()  # Ray takes the handler of SIGTERM along when it goes

        with view, contextlib.ExitStack() as last:
            last.callback(stopping, "stopping Ray", _shutdown)
            say = functools.partial(console.print, markup=False)
            observers.append(RayMetrics(folder.path.name))
            if stored is not None:
                stored.mirror.send()
                observers.append(stored.mirror)
                last.push(monitoring.closing(stored.mirror, stopping))
            for monitor in monitoring.begin(watched, folder, settings, checkpoint or config.pretrained, say):
                observers.append(monitor)
                last.push(monitoring.closing(monitor, stopping))
            if not policy_exists and example.warm_start is not None:
                view.status(
                    "making the policy that training starts from, by imitation: minutes, and only once; "
                    "Ctrl-C stops at once, and the next run goes on with it"
                )
                config.policy(
                    pretrained=example.warm_start.policy(
                        watch=lambda progress: view.status(f"imitation: {describe_cloning(progress)}")
                    )
                )
                validate(config)
                started = time.monotonic()  # the next run, which finds the policy, has as many minutes
            view.status("starting engines, environments and learners")
            algo = config.build_algo()
            last.callback(stopping, "stopping engines, environments and learners", algo.stop)
            last.callback(view.status, "stopping")
            if checkpoint is None:
                folder.begin()
            else:
                view.status(f"restoring {checkpoint.name}")
                algo.restore_from_path(str(checkpoint))
                folder.go_on_from(checkpoint, algo.iteration)
            interruption.be_patient()
            first = config.panel is not None and checkpoint is None
            view.status("before training" if first else f"iteration {algo.iteration + 1}")
            run = Run(
                algo,
                folder,
                example.stop,
                observers=observers,
                interrupted=interruption.reason,
                started=started,
                checkpoint_every=arguments.checkpoint_every,
                keep_checkpoints=arguments.keep_checkpoints,
                stop_unsaved=arguments.on_failed_save == "stop",
                grace=grace,
            )
            outcome = run.train()
            guard.outcome(json.dumps(outcome.summary(config)), exit_code(outcome))
        return outcome


def exit_code(outcome: Outcome) -> int:
    """Of a command: 130 if it was interrupted, 1 if its end is not saved."""
    if outcome.unsaved:
        return 1
    return 130 if outcome.interrupted else 0


def _shutdown() -> None:
    import ray

    ray.shutdown()


@contextlib.contextmanager
def _terminal(verbose: bool, log: Path) -> Iterator[Console]:
    if verbose:
        logging.basicConfig(level=logging.INFO)
        # Lines, not a live view: what libraries print would tear it.
        yield Console(force_terminal=False, highlight=False, soft_wrap=True)
        return
    with quiet_terminal(log) as console:
        yield console


def brief(error: BaseException) -> str:
    """What went wrong, without the traceback that Ray puts into the message."""
    cause: BaseException = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    text = lines[-1] if lines and "Traceback" in str(cause) else " ".join(lines)
    return text if isinstance(cause, REFUSALS) and text else f"{type(cause).__name__}: {text}"


def _say_end(
    console: Console, script: Path, folder: RunFolder, outcome: Outcome, stored: StoredRun | None = None
) -> None:
    console.print(f"ended after {outcome.iterations} iterations: {outcome.reason}", markup=False)
    if outcome.before is not None:
        console.print(f"panel before: {outcome.before}", markup=False)
    if outcome.after is not None:
        console.print(f"panel after:  {outcome.after}", markup=False)
    if stored is not None:
        stored.say_end(functools.partial(console.print, markup=False))
    elif outcome.checkpoint is not None:
        console.print(f"checkpoint: {outcome.checkpoint}", markup=False)
    if outcome.unsaved:
        console.print(f"the end is not saved: {outcome.unsaved}", style="bold red", markup=False)
    if outcome.interrupted or outcome.unsaved or (stored is not None and stored.mirror.lacks):
        say_resume(console, script, folder, stored)
