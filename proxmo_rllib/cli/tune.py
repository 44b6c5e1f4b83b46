"""`proxmo tune`: search over settings of a tuned example with Ray Tune.

    proxmo tune tuned_examples/alfworld_sweep.py
    proxmo tune tuned_examples/alfworld_sweep.py num_groups=4 --iterations 20 --address 10.0.0.1:6379

The file's config holds search spaces where it should vary (`psc_beta=tune.grid_search([0.0, 0.1])`); the file may also
define `tune_config` and `run_config`. Trials run side by side where the cluster has room for them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from proxmo_rllib.cli.session import check_address, describe_resources, prepare_environment, requested, start_ray
from proxmo_rllib.cli.settings import Example, ExampleError, apply_settings, load_example, split_settings

if TYPE_CHECKING:
    from ray.tune import ResultGrid, Tuner

    from proxmo_rllib.config import ProxMOConfig

_SHOWN = (
    ("iterations", "training_iteration", "{:.0f}"),
    ("success", "env_runners/success_rate", "{:.1%}"),
    ("panel", "evaluation/success_rate", "{:.1%}"),
    ("return", "env_runners/episode_return_mean", "{:.3f}"),
    ("seconds", "time_total_s", "{:.0f}"),
)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo tune", description="Search over settings with Ray Tune.")
    parser.add_argument("script", type=Path, metavar="FILE.py|NAME", help="an example with search spaces")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to fix in its config")
    parser.add_argument("--iterations", type=int, help="stop each trial after so many (default: the file's `stop`)")
    parser.add_argument("--wandb", metavar="PROJECT", help="log the trials to Weights & Biases")
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster (default: $RAY_ADDRESS, or this machine)")
    arguments = parser.parse_intermixed_args(argv)
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Search; see the module's docstring. Returns 1 if a trial failed."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), arguments.address)
    console = Console(highlight=False)
    try:
        check_address(arguments.address)
        example = load_example(arguments.script)
        apply_settings(example.config, arguments.settings)
        if arguments.iterations:
            example = replace(example, stop=replace(example.stop, iterations=arguments.iterations))
        from proxmo_rllib.cli.preflight import validate

        one_trial = first_variant(example.config)
        validate(one_trial)
        needs = requested(one_trial)
        where = start_ray(arguments.address, needs.get("CPU", 1.0), log_to_driver=False)
    except (ExampleError, ValueError, FileNotFoundError, ConnectionError) as error:
        print(f"proxmo tune: {error}", file=sys.stderr)
        return 1
    import ray

    console.print(f"on {where}; a trial reserves {describe_resources(needs)}", markup=False)
    try:
        results = make_tuner(example, arguments.wandb).fit()
    finally:
        ray.shutdown()
    console.print(as_table(results, searched(example.config)))
    console.print(f"trials: {results.experiment_path}", markup=False)
    return 1 if results.num_errors else 0


def make_tuner(example: Example, wandb_project: str | None = None) -> Tuner:
    """The Tuner for a tuned example.

    Args:
        example: with search spaces in its config.
        wandb_project: log the trials there; offline where WANDB_MODE says so or there is no key.
    """
    from ray import tune

    from proxmo_rllib.algorithm import ProxMO

    run_config = example.run_config or tune.RunConfig(
        name=f"{example.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}",
        storage_path=str(Path(os.environ.get("PROXMO_RUNS", "runs")).absolute()),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
    )
    if run_config.stop is None:
        run_config.stop = example.stop.as_tune() or None
    if wandb_project:
        run_config.callbacks = [*(run_config.callbacks or []), wandb_callback(wandb_project)]
    return tune.Tuner(ProxMO, param_space=example.config, tune_config=example.tune_config, run_config=run_config)


def wandb_callback(project: str) -> Any:
    """Ray's W&B callback, offline where there is no key."""
    import wandb

    from proxmo_rllib.training_run.wandb_tune import TuneWandbCallback

    if "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False):
        os.environ["WANDB_MODE"] = "offline"
    return TuneWandbCallback(project=project)


def searched(config: ProxMOConfig) -> list[str]:
    """Settings that the config varies, as Tune's results name them: "config/psc_beta"."""
    return list(_spaces(vars(config), "config/"))


def _spaces(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if _is_space(value):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found |= _spaces(value, f"{prefix}{key}/")
    return found


def _is_space(value: Any) -> bool:
    from ray.tune.search.sample import Domain

    return isinstance(value, Domain) or (isinstance(value, Mapping) and set(value) == {"grid_search"})


def first_variant(config: ProxMOConfig) -> ProxMOConfig:
    """The config with one value in the place of each search space, to be checked before anything starts."""
    one: ProxMOConfig = config.copy(copy_frozen=False)
    for key, value in vars(config).items():
        if _is_space(value) or (isinstance(value, Mapping) and _spaces(value, "")):
            setattr(one, key, _first(value))
    return one


def _first(value: Any) -> Any:
    if not _is_space(value):
        return {key: _first(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value
    return value["grid_search"][0] if isinstance(value, Mapping) else value.sample()


def as_table(results: ResultGrid, varied: list[str]) -> Table:
    """One row a trial: what was varied, and what came of it."""
    frame = results.get_dataframe()
    table = Table(box=None, pad_edge=False)
    shown = [(title, key, form) for title, key, form in _SHOWN if key in frame]
    for title in ("trial", *(key.removeprefix("config/") for key in varied), *(title for title, _, _ in shown)):
        table.add_column(title, justify="left" if title == "trial" else "right")
    for _, row in frame.iterrows():
        settings = [f"{row[key]}" if key in frame else "?" for key in varied]
        measured = ["-" if row[key] != row[key] else form.format(row[key]) for _, key, form in shown]
        table.add_row(str(row["trial_id"]), *settings, *measured)
    for error in results.errors:
        table.add_row(str(error).strip().splitlines()[-1], style="red")
    return table
