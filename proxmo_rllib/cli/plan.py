"""`proxmo plan`: memory and time of a run on paper, before anything is downloaded.

    proxmo plan quickstart
    proxmo plan tuned_examples/alfworld_qwen2_5_1_5b.py --gpu-memory 80
    proxmo plan FILE.py --gpu-memory 24 --gpus 2 --model-config config.json

Of the model nothing but its config.json is read. The exit status is 1 if something does not fit; the nearest settings
that do are said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxmo_rllib.cli.example_arguments import arguments_of
from proxmo_rllib.cli.examples import list_examples
from proxmo_rllib.cli.session import prepare_environment
from proxmo_rllib.cli.settings import ExampleError, apply_settings, load_example, split_settings

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.planning import Hardware, Plan, Play


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo plan", description="Memory and time of a run, on paper.")
    parser.add_argument("script", type=Path, metavar="FILE.py|NAME", help=f"a file of yours, or {list_examples()}")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to change in its config")
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GB", help="of a GPU: 24, 80, 141 (default: this machine's, or 80)"
    )
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="how many there are (default: as many as the run reserves)"
    )
    parser.add_argument(
        "--model-config", metavar="MODEL", help="a config.json, a folder or a hub name (default: the config's)"
    )
    parser.add_argument("--turns", type=int, metavar="N", help="of an episode, for the time (default: max_turns)")
    parser.add_argument("--response-tokens", type=int, metavar="N", help="of a turn (default: max_response_tokens)")
    parser.add_argument("--sequence-tokens", type=int, metavar="N", help="of a sequence (default: max_model_len)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, bytes and seconds")
    arguments = parser.parse_intermixed_args(argv)
    for name in ("gpu_memory", "gpus", "turns", "response_tokens", "sequence_tokens"):
        value = getattr(arguments, name)
        if value is not None and not 1 <= value < 1e6:
            parser.error(f"--{name.replace('_', '-')} {value:g}: it is at least 1")
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Plan; see the module's docstring. Returns 1 if something does not fit, or cannot be planned."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), None)
    try:
        example = load_example(arguments.script)
        apply_settings(example.config, arguments.settings)
        elsewhere = arguments.gpu_memory is not None or arguments.gpus is not None
        gpu_gb = arguments.gpu_memory or _card_of(example.config, arguments.settings)
        here = not elsewhere and gpu_gb is None
        hardware = hardware_of(example.config, arguments.gpus, gpu_gb, on_this_machine=here)
        play = _play(example.config, arguments)
        plan = plan_of(example.config, hardware, arguments.model_config, play)
    except (ExampleError, ValueError, OSError) as error:
        print(f"proxmo plan: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        from proxmo_rllib.planning.report import as_dictionary

        print(json.dumps(as_dictionary(plan), indent=2))
    else:
        print_plan(Console(), plan)
    return 1 if plan.problems else 0


def _card_of(config: ProxMOConfig, settings: Mapping[str, str]) -> float | None:
    """GB of the GPUs that an example's own argument `gpu_gb` asks for; None if it has none, or none was typed."""
    return float(settings["gpu_gb"]) if "gpu_gb" in settings and "gpu_gb" in arguments_of(config) else None


def hardware_of(config: ProxMOConfig, gpus: int | None, gpu_gb: float | None, *, on_this_machine: bool) -> Hardware:
    """What a run would have.

    Args:
        config: of the run. One that reserves more GPUs than are here is for another machine, whose memory is not known.
        gpus: how many; None for as many as it reserves.
        gpu_gb: memory of each; None for this machine's, or 80.
        on_this_machine: whether all its processes are to be on this machine.
    """
    from proxmo_rllib.learner.microbatch_size import memory_of_machine
    from proxmo_rllib.planning import Hardware, PlannedSettings, measure_processors, reserved_gpus, this_machines_gpus

    count, mine = this_machines_gpus()
    fits = on_this_machine and reserved_gpus(PlannedSettings.of(config)) <= count
    host_bytes = memory_of_machine() if fits else None
    return Hardware(gpus, gpu_gb or mine or 80, host_bytes, measure_processors())


def plan_of(config: ProxMOConfig, hardware: Hardware, model: str | None = None, play: Play | None = None) -> Plan:
    """The plan of a config.

    Args:
        config: of the run.
        hardware: that it would have.
        model: whose config.json is read; None for the config's own.
        play: what is taken of its episodes; None for their limits.

    Raises:
        ValueError: a setting is wrong, or the model cannot be read.
    """
    from proxmo_rllib.config_checks import broken_rules
    from proxmo_rllib.planning import PlannedModel, PlannedSettings, make_plan

    source = model or config.pretrained
    if source is None:
        raise ValueError("pretrained=None: name a model with pretrained=... or --model-config.")
    for problem in broken_rules({**vars(config), "panel": None}):
        raise ValueError(problem)
    return make_plan(PlannedModel.read(source), PlannedSettings.of(config), hardware, play)


def _play(config: ProxMOConfig, arguments: argparse.Namespace) -> Play | None:
    from proxmo_rllib.planning import PlannedSettings, Play

    names = ("turns", "response_tokens", "sequence_tokens")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return replace(Play.at_limits_of(PlannedSettings.of(config)), at_limits=False, **given) if given else None


def print_plan(console: Console, plan: Plan) -> None:
    """Shows a plan."""
    from proxmo_rllib.planning.report import rows, time_line, title

    console.print(title(plan), markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for what, size, why in rows(plan):
        style = "" if what.startswith(" ") else "bold"
        table.add_row(escape(what), size, escape(why), style=style)
    console.print(table)
    console.print(f"micro-batches of {plan.tokens_per_microbatch:,} tokens", markup=False, highlight=False)
    console.print(time_line(plan.duration), markup=False, highlight=False)
    for line in (*plan.duration.assumptions, *plan.notes):
        console.print(f"  {line}", markup=False, highlight=False, style="dim")
    for problem in plan.problems:
        console.print(f"refused: {problem}", markup=False, highlight=False, style="bold red")
