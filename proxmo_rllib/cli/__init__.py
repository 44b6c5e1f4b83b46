"""The command `proxmo`: one subcommand a module, imported only when it is called.

A subcommand is a module `proxmo_rllib.cli.<name>`, with "_" for "-", with `main(argv: list[str]) -> int`, which returns
the exit status.
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "init": "write an example into a file of your own, to change it",
    "train": "run a tuned example, and watch it",
    "plan": "say what memory and time a run would take, before anything is downloaded",
    "eval": "have checkpoints, models, experts or chance play a panel of tasks, and compare them",
    "play": "play a task yourself, or watch an agent play it",
    "chat": "talk to a policy in the terminal",
    "serve": "serve a policy by OpenAI's API, with vLLM",
    "diagnose": "say what is wrong with a run that does not learn",
    "view": "see the recorded episodes of a run, and why each turn got its advantage",
    "warm-start": "make a tiny policy by imitation, to start a training from",
    "endpoint": "serve a policy to an agent program through OpenAI's API, and record the episodes",
    "from-gguf": "write a GGUF file as a Hugging Face folder, to train it",
    "text-part": "write the text part of a model that also sees or hears, to train it",
    "tune": "search over settings of a tuned example with Ray Tune",
    "data": "get, check and pack the data of an environment",
    "episodes": "recorded episodes to and from a folder of Hugging Face datasets",
    "doctor": "check the installation and the machine, and say what to do",
    "submit": "train on a Ray cluster, and follow it",
    "jobs": "list, stop and fetch what was submitted to a Ray cluster",
}


def module_of(name: str) -> str:
    """The module of a subcommand."""
    return f"proxmo_rllib.cli.{name.replace('-', '_')}"


def usage() -> str:
    """The list of subcommands."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    return f"usage: proxmo COMMAND [ARGUMENTS]\n\n{listed}\n\nproxmo COMMAND --help tells more."


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the words after `proxmo`; those of the process if None.

    Returns:
        The exit status: 2 for a command that is not there, as argparse has it.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    name, *rest = words
    if name in {"-h", "--help", "help"}:
        print(usage())
        return 0
    if name == "--version":
        from proxmo_rllib import __version__

        print(f"proxmo {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"proxmo: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(module_of(name)).main(rest)
    return status
