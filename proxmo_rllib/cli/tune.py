"""`proxmo tune`: search over settings of a tuned example with Ray Tune.

    proxmo tune quickstart_asha
    proxmo tune tuned_examples/alfworld_sweep.py
    proxmo tune tuned_examples/alfworld_sweep.py num_groups=4 --iterations 20 --address 10.0.0.1:6379
    proxmo tune tuned_examples/alfworld_sweep.py psc_beta=0.1 --dry-run
    proxmo tune quickstart_asha --resume

The file's config holds search spaces where it should vary (`psc_beta=tune.grid_search([0.0, 0.1])`); the file may also
define `tune_config` and `run_config`. Trials run side by side where the cluster has room for them; each ends as the
file's `stop` says, with the panel played. `key=value` fixes a setting, a searched one too. What came of it lies in the
sweep's folder: results.json, results.md, sweep.svg. See docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from proxmo_rllib.cli import monitoring
from proxmo_rllib.cli.guarded import guarded_ray
from proxmo_rllib.cli.resumption import TRUSTS
from proxmo_rllib.cli.session import (
    check_address,
    check_machine,
    cluster_address,
    prepare_environment,
    quiet_terminal,
    requested,
)
from proxmo_rllib.cli.settings import Example, ExampleError, apply_settings, load_example, split_settings
from proxmo_rllib.cli.train import REFUSALS, brief
from proxmo_rllib.machine.folders import make_folder
from proxmo_rllib.machine.resources import describe
from proxmo_rllib.storage.place import StorageError, is_uri, join, open_place

if TYPE_CHECKING:
    from ray.tune import ResultGrid, Tuner

    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.tuning.results import TrialResult

# Tune notes where a sweep stands after so many seconds: what is not noted when it is killed is played again. The note
# is some hundred kilobytes a trial.
_NOTE_S, _NOTE_S_PER_TRIAL = 2.0, 0.1
# Columns of the table in a file.
_WIDTH = 160
# Checkpoints of a trial that are kept: PBT may still give an older one to another trial.
_KEPT = 4
_SAVE_EVERY = 5


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo tune", description="Search over settings with Ray Tune.")
    parser.add_argument("script", type=Path, metavar="FILE.py|NAME", help="an example with search spaces")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to fix in its config")
    parser.add_argument("--iterations", type=int, help="stop each trial after so many (default: the file's `stop`)")
    monitoring.add_options(parser, sweep=True)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="SWEEP",
        help="go on with a sweep that was interrupted: its folder (default: the newest of the file)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster (default: $RAY_ADDRESS, or this machine)")
    parser.add_argument("--dry-run", action="store_true", help="check a trial, all but the weights, and start nothing")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.iterations is not None and arguments.iterations < 1:
        parser.error(f"--iterations {arguments.iterations}: it is at least 1")
    arguments.monitoring = monitoring.read_options(parser, arguments)
    if arguments.resume is not None and (arguments.settings or arguments.iterations):
        parser.error("--resume goes on with the sweep as it was begun: leave out key=value and --iterations")
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Search; see the module's docstring. Returns 1 if a trial failed, 130 if it was interrupted."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), arguments.address)
    from proxmo_rllib.tuning.checks import missing_metric, number_of_trials

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    try:
        check_address(arguments.address)
        folder, example, iterations = _chosen(arguments)
        if (storage := storage_of(example)) is not None:
            open_place(storage).check_writable()
        trials = check_trials(example)
        if arguments.dry_run:
            return _dry_run(example, trials, arguments.address, console)
        note_s = max(_NOTE_S, min(60.0, _NOTE_S_PER_TRIAL * number_of_trials(example.config, example.tune_config)))
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(note_s))
        request = requested(_largest(trials))
        check_machine(request, arguments.address, in_trials=True)
        folder = folder or make_folder(new_folder(example), "the trials' folder", "set PROXMO_RUNS to one that can")
        if arguments.resume is None:
            _note(folder, example, arguments.settings, iterations)
        log = folder / "log.txt"
    except REFUSALS as error:
        print(f"proxmo tune: {error}", file=sys.stderr)
        return 1
    go_on = f"go on with: {shlex.join(['proxmo', 'tune', str(arguments.script), '--resume', _near(folder)])}"
    with quiet_terminal(log) as terminal:
        try:
            with guarded_ray(terminal, log, arguments.address, request, in_trials=True) as (where, guard):
                terminal.print(
                    f"on {where}; a trial reserves {describe(request.required_resources)}; log: {log}", markup=False
                )
                if arguments.resume is not None:
                    terminal.print(TRUSTS.format(_near(folder)), markup=False)
                results = _search(example, arguments, folder, terminal, guard)
        except KeyboardInterrupt:
            terminal.print(f"stopped at once; {go_on}", style="yellow", markup=False)
            return 130
        except Exception as error:
            logging.getLogger().exception("The search failed.")  # to the file; the terminal gets the short story
            said = missing_metric(error) or brief(error)
            terminal.print(f"proxmo tune: {said}", style="bold red", markup=False)
            terminal.print(f"the whole story: {log}\n{go_on}", markup=False)
            return 1
    status = _say_end(console, results, example, folder, go_on)
    if place := monitoring.where_trials_are(arguments.monitoring, folder):
        console.print(place, markup=False, soft_wrap=True)
    return status


def _chosen(arguments: argparse.Namespace) -> tuple[Path | None, Example, int | None]:
    """The folder of the sweep that is gone on with, if one is; the example, as it is searched; trials' iterations."""
    from proxmo_rllib.tuning.folder import check_same_spaces, fetch_sweep, find_sweep

    example = load_example(arguments.script)
    folder, iterations, settings, sweep = None, arguments.iterations, arguments.settings, None
    if arguments.resume is not None:
        if is_uri(arguments.resume):
            arguments.resume = str(fetch_sweep(arguments.resume, runs_folder() / open_place(arguments.resume).name))
        folder, sweep = find_sweep(arguments.resume, runs_folder(), example.path)
        iterations, settings = sweep.iterations, sweep.settings
    apply_settings(example.config, settings)
    if folder is not None and sweep is not None:
        check_same_spaces(sweep, example.config, folder)
    if iterations:
        example = replace(example, stop=replace(example.stop, iterations=iterations))
    return folder, example, iterations


def check_trials(example: Example) -> list[ProxMOConfig]:
    """Finds what can be found wrong with a search before anything starts.

    Returns:
        Configs of trials.

    Raises:
        ExampleError: there is nothing to search.
        ValueError: a trial's setting is wrong, or the metric can never be there; names it.
        FileNotFoundError: data that the environment needs is not there.
    """
    from proxmo_rllib.cli.preflight import validate
    from proxmo_rllib.tuning.checks import trial_configs, varied_settings

    if not varied_settings(example.config, example.tune_config):
        raise ExampleError(
            f"{example.path}: its config has no search space, such as psc_beta=tune.grid_search([0.0, 0.1]); "
            f"for one run, say: proxmo train {example.path}"
        )
    trials = trial_configs(example.config, example.tune_config)
    validate(trials[0])
    return trials


def _largest(trials: Sequence[ProxMOConfig]) -> ProxMOConfig:
    """The trial that reserves most; if it does not fit, that should not be found after hours."""

    def amounts(trial: ProxMOConfig) -> tuple[float, float]:
        resources = requested(trial).required_resources
        return resources.get("GPU", 0.0), resources.get("CPU", 0.0)

    return max(trials, key=amounts)


def _dry_run(example: Example, trials: Sequence[ProxMOConfig], address: str | None, console: Console) -> int:
    """Shows what a trial's dry run finds; 1 if it would be refused."""
    from proxmo_rllib.cli.preflight import OK, REFUSED, Check, check_plan, check_resources, dry_run, print_dry_run
    from proxmo_rllib.tuning.checks import mutations_of
    from proxmo_rllib.tuning.folder import spaces_in_words

    one_trial = _largest(trials)
    checks, prompt = dry_run(one_trial)
    spaces = spaces_in_words(example.config)
    found = ", ".join(f"{name}: {space}" for name, space in spaces.items())
    changes = ", ".join(mutations_of(example.tune_config))
    checks.insert(0, Check("search", OK, found + (f"; changed while trials run: {changes}" if changes else "")))
    checks.insert(1, Check("trials", OK, _how_many(example, one_trial, address)))
    checks += [check_resources(one_trial, address, in_trial=True), *check_plan(one_trial, address)[0]]
    print_dry_run(console, checks, prompt)
    return 1 if any(check.status == REFUSED for check in checks) else 0


def _how_many(example: Example, one_trial: ProxMOConfig, address: str | None) -> str:
    """How many trials there will be, and how many of them at once, in words."""
    from proxmo_rllib.machine.processors import available_cores
    from proxmo_rllib.tuning.checks import number_of_trials

    number = number_of_trials(example.config, example.tune_config)
    told = f"{number:g}" if math.isfinite(number) else "until its time is over"
    if cluster_address(address) is not None:
        return f"{told}, as many at once as the cluster has room for"
    cpus = requested(one_trial).required_resources.get("CPU", 1.0)
    at_once = max(1, int(available_cores() / cpus))
    most = getattr(example.tune_config, "max_concurrent_trials", None) or number
    return f"{told}, {min(at_once, most, number):g} at once on this machine's CPUs"


def runs_folder() -> Path:
    """Where trials are kept."""
    runs = os.environ.get("PROXMO_RUNS", "runs")
    return Path("runs" if is_uri(runs) else runs).absolute()


def storage_of(example: Example) -> str | None:
    """The URI below which the sweep's trials are kept: the file's `storage_path`, or PROXMO_RUNS; None for a folder."""
    named = getattr(example.run_config, "storage_path", None) or os.environ.get("PROXMO_RUNS", "")
    return str(named) if is_uri(str(named)) else None


def new_folder(example: Example) -> Path:
    """A sweep's folder: where the file's `run_config` has it on this machine, else a new one."""
    named = example.run_config
    name = getattr(named, "name", None) or f"{example.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    storage = str(getattr(named, "storage_path", None) or "")
    return (Path(storage) if storage and not is_uri(storage) else runs_folder()) / name


def _note(folder: Path, example: Example, settings: dict[str, str], iterations: int | None) -> None:
    """Notes in the folder what is searched.

    Raises:
        ValueError: another sweep is there already.
        OSError: the disk does not take it.
    """
    from proxmo_rllib.tuning.folder import NAME, Sweep, spaces_in_words

    if (folder / NAME).exists():
        raise ValueError(
            f"{folder}: a sweep is there already; go on with it (--resume {folder}), or give the file's run_config "
            "another name."
        )
    storage = storage_of(example)
    uri = None if storage is None else join(storage, folder.name)
    Sweep(str(example.path.absolute()), settings, spaces_in_words(example.config), iterations, uri).write(folder)
    if uri is not None:
        open_place(uri).below(NAME).upload(folder / NAME)


def make_tuner(
    example: Example,
    folder: Path,
    watched: monitoring.Monitoring = monitoring.NOTHING,
    callbacks: Sequence[Any] = (),
    resume: bool = False,
) -> Tuner:
    """The Tuner for a tuned example.

    Args:
        example: with search spaces in its config.
        folder: of the sweep.
        watched: where the trials' numbers go besides.
        callbacks: Tune's, besides.
        resume: whether the sweep in the folder is gone on with.
    """
    from ray import tune

    from proxmo_rllib.tuning.folder import restore_tuner
    from proxmo_rllib.tuning.trial import trial_class, trial_folder

    every = example.config.evaluation_interval
    run_config = example.run_config or tune.RunConfig(
        storage_path=storage_of(example) or str(folder.parent),
        checkpoint_config=tune.CheckpointConfig(
            checkpoint_at_end=True,
            checkpoint_frequency=every if isinstance(every, int) and every else _SAVE_EVERY,
            num_to_keep=_KEPT,
        ),
        verbose=0,
    )
    run_config.name = run_config.name or folder.name
    callbacks = [*(run_config.callbacks or []), *callbacks]
    run_config.callbacks = [*callbacks, *monitoring.for_trials(watched, example.config, callbacks)]
    trainable = trial_class(example.config.algo_class, example.stop)
    if resume:
        return restore_tuner(folder, trainable, example.config, run_config.callbacks)
    tune_config = example.tune_config or tune.TuneConfig()
    tune_config = replace(
        tune_config,
        reuse_actors=True,  # a trial in the processes of the one before need not start engines of its own
        trial_dirname_creator=tune_config.trial_dirname_creator or trial_folder,
    )
    return tune.Tuner(trainable, param_space=example.config, tune_config=tune_config, run_config=run_config)


def _search(example: Example, arguments: argparse.Namespace, folder: Path, terminal: Console, guard: Any) -> ResultGrid:
    from proxmo_rllib.cli.trial_lines import make_watch
    from proxmo_rllib.tuning.checks import varied_settings
    from proxmo_rllib.tuning.stall import StallWatch

    watch = make_watch(terminal, varied_settings(example.config, example.tune_config), folder.name)
    watched, resume = arguments.monitoring, arguments.resume is not None
    tuner = make_tuner(example, folder, watched, [watch, StallWatch()], resume)
    guard.be_patient()  # Tune ends at the first Ctrl-C, and keeps what there is
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))  # Tune's other name
    with watch:
        return tuner.fit()


def _say_end(console: Console, grid: ResultGrid, example: Example, folder: Path, go_on: str) -> int:
    """Writes and shows what came of the sweep; returns the exit status."""
    from proxmo_rllib.tuning.board import short
    from proxmo_rllib.tuning.checks import varied_settings
    from proxmo_rllib.tuning.folder import read_sweep
    from proxmo_rllib.tuning.picture import draw
    from proxmo_rllib.tuning.results import NAME, PICTURE, TABLE, best_of, read_results, undecided, write_results

    varied = varied_settings(example.config, example.tune_config)
    metric, mode = (getattr(example.tune_config, name, None) for name in ("metric", "mode"))
    results = read_results(grid, varied, metric)
    write_results(folder, results, varied, metric=metric, mode=mode)
    (folder / PICTURE).write_text(draw(results, varied, folder.name, mode), encoding="utf-8")
    if (storage := read_sweep(folder).storage) is not None:
        console.print(_keep(folder, (NAME, TABLE, PICTURE), storage), markup=False, soft_wrap=True)
    best = best_of(results, mode)
    console.print(as_table(results, varied, best))
    for result in results:
        if result.error is not None:
            console.print(f"{short(result.trial_id)} failed: {result.error}", style="red", markup=False)
    if best is not None:
        others = undecided(results, best)
        console.print(
            f"best: trial {short(best.trial_id)}" + (f", which {others} more may equal" if others else ""),
            markup=False,
        )
        if best.checkpoint is not None:
            place = best.checkpoint if is_uri(best.checkpoint) else _near(Path(best.checkpoint))
            console.print(f"use it: proxmo eval {place}", markup=False, soft_wrap=True)
    console.print(f"in {_near(folder)}: results.md, results.json, {PICTURE}, log.txt", markup=False, soft_wrap=True)
    unfinished = any(not (result.metrics or {}).get("done") for result in grid)
    if unfinished:
        console.print(f"not all trials are done; {go_on}", markup=False, soft_wrap=True)
    if grid.num_errors:
        return 1
    return 130 if unfinished else 0


def _keep(folder: Path, names: Sequence[str], storage: str) -> str:
    """Copies files of a sweep to where its trials are; says where that is, or why it did not work."""
    try:
        for name in names:
            open_place(storage).below(name).upload(folder / name)
    except StorageError as error:
        return f"these files are not with the trials: {error}"
    return f"the trials and these files are at {storage}"


def as_table(results: Sequence[TrialResult], varied: Sequence[str], best: TrialResult | None = None) -> Table:
    """One row a trial: what was varied, and what came of it."""
    from proxmo_rllib.tuning.results import cells, headings

    names = headings(results, varied)
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in ("trial", "panel [95%]") else "right", overflow="fold")
    for result in results:
        table.add_row(*cells(result, names), style="bold" if result is best else None)
    return table


def _near(path: Path) -> str:
    """A path as short as it can be said from here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
