"""`proxmo chat`: talk to a policy in the terminal.

    proxmo chat runs/quickstart-20260102-030405
    proxmo chat asset:alfworld-tiny --temperature 0
    proxmo chat http://127.0.0.1:8000/v1 --api-key KEY
    echo "Hello" | proxmo chat MODEL

The policy runs in this process, without Ray; at an address, its replies come word by word. A line is a message.
`/reset` begins anew, `/task` has the environment that the policy was trained on say its first words, `/quit` or the end
of the input ends.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from proxmo_rllib.cli.session import prepare_environment

if TYPE_CHECKING:
    from proxmo_rllib.cli.policies import NamedPolicy
    from proxmo_rllib.serving.chat import Reply, Sampling, Talker

# Below it a model knows little more than what it was trained on here.
_TINY = 50_000_000
_COMMANDS = "/reset begins anew, /task [ID] brings a task, /temperature T and /tokens N set the sampling, /quit ends"


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo chat", description="Talk to a policy.", epilog=_COMMANDS + ".")
    parser.add_argument("model", metavar="CHECKPOINT|MODEL|URL", help="as for `proxmo serve`, or what it serves at")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: 1, as in training)")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of a reply (default: 512)")
    parser.add_argument("--seed", type=int, help="of the sampling (default: another each time)")
    parser.add_argument("--system", metavar="TEXT", help="opens the conversation (default: as in training)")
    parser.add_argument("--max-model-len", type=int, metavar="N", help="tokens of the whole conversation")
    parser.add_argument("--api-key", metavar="KEY", help="of the server at URL (default: $PROXMO_API_KEY)")
    parser.add_argument("--model", dest="name", default="policy", metavar="NAME", help="of the model at URL (policy)")
    arguments = parser.parse_args(argv)
    if not arguments.temperature >= 0:
        parser.error(f"--temperature {arguments.temperature:g}: must be 0 or more")
    for name in ("max_tokens", "max_model_len"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least 1")
    return arguments


def main(argv: list[str]) -> int:
    """Talk; see the module's docstring."""
    from proxmo_rllib.serving.chat import ChatError, Sampling

    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), None)
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    sampling = Sampling(arguments.temperature, arguments.max_tokens, seed)
    screen = Screen()
    try:
        talk = _at_address(arguments) if "://" in arguments.model else _in_process(arguments, screen)
    except (ChatError, ValueError, OSError) as error:
        print(f"proxmo chat: {error}", file=sys.stderr)
        return 1
    talker, tasks = talk
    try:
        return converse(talker, tasks, sampling, screen)
    except KeyboardInterrupt:
        return 0
    finally:
        talker.close()


class Screen:
    """What is shown: replies on standard output; notes, where a person reads, in grey beside them, and else apart."""

    def __init__(self) -> None:
        self.is_person = sys.stdin.isatty() and sys.stdout.isatty()
        self._replies = Console(highlight=False, soft_wrap=True)
        self._notes = self._replies if self.is_person else Console(stderr=True, highlight=False, soft_wrap=True)
        self._pieces = False

    def ask(self) -> str | None:
        """The next line, None at the end of the input."""
        try:
            return input("> " if self.is_person else "").strip()
        except EOFError:
            return None

    def note(self, text: str) -> None:
        """Something about the conversation, and no part of it."""
        self._notes.print(text, style="dim", markup=False)

    def piece(self, text: str) -> None:
        """A part of a reply that is on its way; only a person watches it come."""
        if self.is_person and text:
            self._replies.print(text, end="", markup=False)
            self._pieces = True

    def reply(self, reply: Reply) -> None:
        """A whole reply; what was shown in pieces is only ended."""
        if self._pieces:
            self._replies.print()
        else:
            if reply.thought is not None:
                self._replies.print(f"[thinks] {reply.thought.strip()}", style="dim", markup=False)
            self._replies.print(reply.answer.strip(), markup=False)
        self._pieces = False
        if reply.cut_off:
            self.note("(cut off at the limit of tokens; /tokens N sets it)")


class Tasks:
    """First messages of the environment that a policy was trained on.

    Args:
        config: of its checkpoint.
    """

    def __init__(self, config: Any) -> None:
        self._config = config

    def message(self, task: str, rng: random.Random) -> str:
        """What a task's first prompt says.

        Args:
            task: its id; empty for one at random.
            rng: draws it.

        Raises:
            ValueError: there is no such task.
        """
        from proxmo_rllib.rollouts.environments import begin, make_text_env, split_tasks

        env = make_text_env(self._config)
        try:
            chosen = task or rng.choice(split_tasks(env, self._config))
            return begin(env, chosen)[0]
        finally:
            env.close()


def converse(talker: Talker, tasks: Tasks | None, sampling: Sampling, screen: Screen) -> int:
    """One message after the other, until there are no more.

    Returns:
        The exit status: 1 if a message got no reply and nobody is there to say another.
    """
    from proxmo_rllib.serving.chat import ChatError

    rng = random.Random(sampling.seed)
    while (line := screen.ask()) is not None:
        if line in ("/quit", "/exit"):
            break
        try:
            message = _obey(line, talker, tasks, sampling, screen, rng) if line.startswith("/") else line
            if message:
                screen.reply(talker.reply(message, sampling, screen.piece))
        except (ChatError, ValueError) as error:
            screen.note(str(error))
            if not screen.is_person:
                return 1
    return 0


def _obey(
    line: str, talker: Talker, tasks: Tasks | None, sampling: Sampling, screen: Screen, rng: random.Random
) -> str | None:
    """Does what a command says; returns what is to be said to the policy, if anything."""
    command, _, value = line.partition(" ")
    value = value.strip()
    if command == "/reset":
        talker.reset()
    elif command == "/temperature" and _is_number(value):
        sampling.temperature = float(value)
    elif command == "/tokens" and value.isdigit() and int(value):
        sampling.max_tokens = int(value)
    elif command == "/task":
        if tasks is None:
            raise ValueError("/task: nothing says which environment it was trained on; only a checkpoint does.")
        talker.reset()
        message = tasks.message(value, rng)
        screen.note(message)
        return message
    else:
        raise ValueError(f"{line}: {_COMMANDS}.")
    return None


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _at_address(arguments: argparse.Namespace) -> tuple[Talker, None]:
    from proxmo_rllib.serving.access import KEY
    from proxmo_rllib.serving.chat import ServedTalker

    key = arguments.api_key or os.environ.get(KEY, "")
    talker = ServedTalker(arguments.model, key, arguments.name, arguments.system)
    talker.check()
    return talker, None


def _in_process(arguments: argparse.Namespace, screen: Screen) -> tuple[Talker, Tasks | None]:
    from proxmo_rllib.cli.policies import find_policy
    from proxmo_rllib.inference.engine import EngineConfig, build_engine
    from proxmo_rllib.machine.processors import available_cores
    from proxmo_rllib.policies import load_tokenizer
    from proxmo_rllib.rollouts.conversation import ChatFormat
    from proxmo_rllib.serving.chat import PolicyTalker
    from proxmo_rllib.serving.policy import describe_policy, refuse_adapter_alone

    refuse_adapter_alone(arguments.model)
    named = find_policy(arguments.model)
    policy = describe_policy(named.pretrained, named.config, dtype=None, max_model_len=arguments.max_model_len)
    system = policy.system if arguments.system is None else arguments.system or None
    chat = ChatFormat.from_tokenizer(
        load_tokenizer(policy.folder),
        system,
        template_kwargs=policy.template_kwargs,
        **({} if named.config is None else {"today": named.config.chat_template_date}),
    )
    engine = build_engine(
        EngineConfig(
            model=str(policy.folder),
            kind="transformers",
            dtype=policy.dtype,  # type: ignore[arg-type]
            max_model_len=policy.max_model_len,
            max_num_seqs=1,
            threads=available_cores(),
        )
    )
    for words in expectations(named, policy.trained_on, _weights(policy.folder)):
        screen.note(words)
    return PolicyTalker(engine, chat, policy.max_model_len), _tasks(named)


def expectations(named: NamedPolicy, trained_on: str, num_weights: int) -> list[str]:
    """What a person may expect of the policy, in words."""
    said = []
    if num_weights < _TINY:
        said.append(
            f"A tiny model ({num_weights / 1e6:.1f} million weights): it answers prompts like those that it was made "
            "for, and nothing else; to anything else it says what resembles them."
        )
    if trained_on:
        said.append(f"Trained on {trained_on}: /task begins one of its tasks, and `proxmo play` has it play on.")
    said.append(_COMMANDS)
    return said


def _weights(folder: Path) -> int:
    from math import prod

    from proxmo_rllib.policies.model_folder import read_model_folder

    return sum(prod(shape) for shape in read_model_folder(folder).tensors.values())


def _tasks(named: NamedPolicy) -> Tasks | None:
    """Where the checkpoint's environment is data, and no code that it names."""
    if named.config is None or not named.config.env or named.withheld.keys() & {"env", "env_config"}:
        return None
    return Tasks(named.config)
