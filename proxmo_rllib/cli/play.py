"""`proxmo play`: play a task in the terminal, or watch an agent play it.

    proxmo play env_wrappers/ALFWorld-v0
    proxmo play my_module:MyEnv env_config.size=3
    proxmo play tuned_examples/quickstart.py --split valid_unseen
    proxmo play tuned_examples/quickstart.py --agent runs/quickstart-20260102-030405
    proxmo play env_wrappers/ALFWorld-v0 --task generated/valid_unseen/000003 --agent expert

The tab key completes actions, an empty line lists them, `quit` ends. No Ray is started; a policy runs in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape

from proxmo_rllib.cli.examples import import_from_here, installed_example
from proxmo_rllib.cli.session import prepare_environment
from proxmo_rllib.cli.settings import ExampleError, apply_settings, load_example, split_settings

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.evaluation.players import Player
    from proxmo_rllib.types import Turn

QUIT = ("quit", "exit")


class Quit(Exception):
    """The person has had enough."""


class HumanPlayer:
    """Asks the person at the terminal.

    Args:
        console: to write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._admissible: list[str] = []
        self._greeted = False

    def respond(self, message: str, info: Mapping[str, Any]) -> str:
        self._admissible = list(info.get("admissible_actions", ()))
        self._console.print(info["anchor"], markup=False, highlight=False)
        if not self._greeted:
            hint = "tab completes an action, an empty line lists them all, `quit` ends"
            self._console.print(hint if self._admissible else "`quit` ends", style="dim")
            self._greeted = True
        while True:
            with completing(self._admissible):
                try:
                    typed = input("> ").strip()
                except EOFError:
                    raise Quit from None
            if typed in QUIT:
                raise Quit
            if typed:
                return typed
            self._console.print(Columns(map(escape, self._admissible), padding=(0, 3)), style="cyan")


@contextlib.contextmanager
def completing(choices: Sequence[str]) -> Any:
    """Lets the tab key complete whole lines from the choices, where the terminal can."""
    try:
        import readline
    except ImportError:  # Python without it: typing works all the same
        yield
        return
    old = (readline.get_completer(), readline.get_completer_delims())

    def complete(text: str, state: int) -> str | None:
        fitting = [choice for choice in choices if choice.startswith(text)]
        return fitting[state] if state < len(fitting) else None

    readline.set_completer(complete)
    readline.set_completer_delims("")  # an action is several words
    editline = "libedit" in (readline.__doc__ or "")  # what some Pythons have in its place, with commands of its own
    readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(old[0])
        readline.set_completer_delims(old[1])


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo play", description="Play a task, or watch an agent play it.")
    parser.add_argument(
        "env", metavar="ENV_ID|MODULE:NAME|FILE.py|NAME", help="a Gymnasium id, your class or function, a tuned example"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to change in the config")
    parser.add_argument("--task", metavar="ID", help="the task (default: one at random)")
    parser.add_argument("--split", default="train", help="where a random task comes from (default: train)")
    parser.add_argument("--agent", metavar="expert|random|CHECKPOINT", help="watch it play")
    parser.add_argument("--temperature", type=float, help="of a policy; 0 is greedy (default: the panel's)")
    parser.add_argument("--max-turns", type=int, help="(default: the config's for an agent, none for a person)")
    parser.add_argument("--seed", type=int, help="of the task's choice and the agent (default: another each time)")
    arguments = parser.parse_intermixed_args(argv)
    try:
        arguments.settings = split_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str]) -> int:
    """Play; see the module's docstring."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), None)
    console = Console(highlight=False)
    try:
        config = _config(arguments)
        return _play(arguments, config, console)
    except (ExampleError, ValueError, OSError) as error:
        print(f"proxmo play: {error}", file=sys.stderr)
        return 1
    except (Quit, KeyboardInterrupt):
        console.print("\nleft the task unfinished")
        return 0


def _config(arguments: argparse.Namespace) -> ProxMOConfig:
    from proxmo_rllib.config import ProxMOConfig

    if arguments.env.endswith(".py") or installed_example(arguments.env):
        config = load_example(Path(arguments.env)).config
    else:
        import_from_here()  # MODULE:NAME
        config = ProxMOConfig().environment(arguments.env)
    apply_settings(config, arguments.settings)
    return config


def _play(arguments: argparse.Namespace, config: ProxMOConfig, console: Console) -> int:
    from proxmo_rllib.evaluation.players import play_task
    from proxmo_rllib.rollouts.environments import env_name, make_text_env

    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    config = _prompting(arguments, config)
    env = make_text_env(config)
    player = _player(arguments, config, env, console, seed)
    bare: Any = env.unwrapped
    task = arguments.task
    if task is None and hasattr(bare, "tasks"):
        task = random.Random(seed).choice(bare.tasks(arguments.split))
    name = env_name(config.env)
    console.print(f"{name}, task {task}" if task else name, style="dim", markup=False)
    limit = arguments.max_turns or (config.max_turns if arguments.agent else sys.maxsize)
    human = not arguments.agent
    ending = ""

    def watch(turn: Turn, info: Mapping[str, Any]) -> None:
        nonlocal ending
        if not human:
            show_turn(console, turn)
        ending = info["anchor"]

    episode = play_task(env, player, task=task or "", seed=seed, max_turns=limit, watch=watch)
    env.close()
    console.print(ending, markup=False)
    colour = "green" if episode.success else "yellow"
    verdict = f"{episode.status.value} after {len(episode)} turns, return {episode.episode_return:g}"
    console.print(verdict, style=f"bold {colour}")
    return 0


def _prompting(arguments: argparse.Namespace, config: ProxMOConfig) -> ProxMOConfig:
    """The config that the player needs: a person reads bare observations, a checkpoint what it was trained on."""
    from proxmo_rllib.cli.policies import find_policy
    from proxmo_rllib.evaluation.players import SCRIPTS

    if arguments.agent is None:
        return config.prompting(
            context="append", template="bare", response_style="bare", history=None, show_admissible=False
        )
    if arguments.agent in SCRIPTS:
        return config
    policy = find_policy(arguments.agent)
    policy.refuse_withheld(("env", "env_config", "panel", "engine_kwargs"))  # of those it takes the command line's
    trained = policy.config or config
    return trained.policy(pretrained=policy.pretrained).environment(config.env, env_config=config.env_config)


def _player(arguments: argparse.Namespace, config: ProxMOConfig, env: Any, console: Console, seed: int) -> Player:
    from proxmo_rllib.evaluation.players import SCRIPTS, PolicyPlayer, ScriptPlayer, make_script
    from proxmo_rllib.inference.engine import EngineConfig, build_engine
    from proxmo_rllib.rollouts.environments import chat_format

    if arguments.agent is None:
        return HumanPlayer(console)
    if arguments.agent in SCRIPTS:
        return ScriptPlayer(make_script(arguments.agent, env, random.Random(seed)), config.response_style)
    engine = build_engine(
        EngineConfig(
            model=str(config.pretrained), kind="transformers", max_model_len=config.max_model_len, max_num_seqs=1
        )
    )
    return PolicyPlayer(
        engine,
        chat_format(config),
        append=config.context == "append",
        temperature=config.panel_temperature if arguments.temperature is None else arguments.temperature,
        max_tokens=config.max_response_tokens,
        max_prompt_tokens=config.max_model_len - config.max_response_tokens,
        seed=seed,
    )


def show_turn(console: Console, turn: Turn) -> None:
    """Prints what the agent read and did."""
    console.print(turn.anchor, markup=False)
    if turn.response.strip() != turn.action:
        console.print(turn.response, style="dim", markup=False)
    console.print(f"> {turn.action}", style="bold cyan" if turn.action_valid else "bold red", markup=False)
