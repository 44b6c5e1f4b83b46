"""`proxmo serve`: vLLM's own server for a trained policy, with sizes that fit this machine.

    proxmo serve runs/quickstart-20260102-030405
    proxmo serve asset:alfworld-tiny --port 0
    proxmo serve Qwen/Qwen2.5-1.5B-Instruct --adapter runs/lora/checkpoint_000010/adapter
    proxmo serve runs/quickstart-20260102-030405 --dry-run

It speaks OpenAI's API; the model is called `policy`. It listens on this machine alone and wants a key, which it prints.
What follows `--` is for vLLM's server as it is. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from proxmo_rllib.cli.session import prepare_environment

if TYPE_CHECKING:
    from proxmo_rllib.serving.command import Served
    from proxmo_rllib.serving.sizes import Room, Sizes

_LOCAL = ("127.0.0.1", "::1", "localhost")


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo serve",
        description="Serve a policy by OpenAI's API, with vLLM.",
        epilog="What follows -- is for vLLM's server as it is.",
    )
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help="a run, a checkpoint, a model's folder or hub name")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument(
        "--api-key", metavar="KEY", help="that clients have to send (default: $PROXMO_API_KEY, or a random one)"
    )
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="of PEFT's, served on top of MODEL")
    parser.add_argument("--max-model-len", type=int, metavar="N", help="tokens of prompt and reply together")
    parser.add_argument("--max-num-seqs", type=int, default=16, metavar="N", help="requests at a time (default: 16)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: as it was trained)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be started and what memory it takes")
    words, more = _before_and_after(argv)
    arguments = parser.parse_args(words)
    arguments.more = more
    for name in ("max_model_len", "max_num_seqs"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least 1")
    return arguments


def main(argv: list[str]) -> int:
    """Serve; see the module's docstring."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), None)
    try:
        served = _served(arguments)
    except (ValueError, OSError) as error:
        print(f"proxmo serve: {error}", file=sys.stderr)
        return 1
    _print_sizes(served.sizes)
    if arguments.dry_run:
        from proxmo_rllib.serving.command import words_for_vllm
        from proxmo_rllib.serving.vllm_process import VLLM_SERVER

        print(f"python -m {VLLM_SERVER} {shlex.join(words_for_vllm(served))}")
        return 0
    return _run(served, arguments.api_key)


def _before_and_after(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words before `--` and those after it."""
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


def _served(arguments: argparse.Namespace) -> Served:
    from proxmo_rllib.cli.policies import find_policy
    from proxmo_rllib.inference.vllm_internals import require_vllm
    from proxmo_rllib.planning.model import PlannedModel
    from proxmo_rllib.serving import policy as policies
    from proxmo_rllib.serving.command import Served
    from proxmo_rllib.serving.server import check_port, check_temporary_folder
    from proxmo_rllib.serving.sizes import choose_sizes

    policies.refuse_adapter_alone(arguments.model)
    check_temporary_folder()
    port = check_port(arguments.host, arguments.port)
    rank = 0 if arguments.adapter is None else policies.rank_of_adapter(arguments.adapter)
    named = find_policy(arguments.model)
    try:
        require_vllm()
    except ImportError as error:
        raise ValueError(str(error)) from error
    policy = policies.describe_policy(
        named.pretrained, named.config, dtype=arguments.dtype, max_model_len=arguments.max_model_len
    )
    model = PlannedModel.read(policy.folder)
    policies.refuse_what_vllm_cannot_run(policy, model.config)
    sizes = choose_sizes(
        model,
        _room(),
        dtype=policy.dtype,
        max_model_len=policy.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
    )
    if policy.system:
        print(f"It was trained with the system message {policy.system!r}: send it first.")
    adapter = arguments.adapter and arguments.adapter.resolve()
    return Served(
        policy.folder, sizes, arguments.host, port, policy.template_kwargs, adapter, rank, tuple(arguments.more)
    )


def _room() -> Room:
    """Where a server would go: the GPU that vLLM takes, or this machine's memory where vLLM is the one for CPUs."""
    from proxmo_rllib.inference.support import is_cpu_wheel
    from proxmo_rllib.machine.memory import available_memory
    from proxmo_rllib.serving.sizes import Room

    if is_cpu_wheel():
        return Room("this machine", available_memory())
    import torch

    if not torch.cuda.is_available():
        raise ValueError("vLLM is installed for GPUs, and there is none; pip install 'proxmo_rllib[cpu]'.")
    free, total = torch.cuda.mem_get_info()
    return Room("the GPU", free, total)


def _print_sizes(sizes: Sizes) -> None:
    from proxmo_rllib.planning.hardware import GIB

    print(f"{sizes.bytes / GIB:.2f} GiB, {sizes.max_model_len:,} tokens of prompt and reply, {sizes.dtype}:")
    for part in sizes.parts:
        print(f"  {part.what:<18} {part.bytes / GIB:6.2f} GiB  {part.why}")


def _run(served: Served, said_key: str | None) -> int:
    from proxmo_rllib import quiet
    from proxmo_rllib.serving.access import KEY
    from proxmo_rllib.serving.server import ServerError, VLLMServer, interrupted_by_sigterm

    key = said_key or os.environ.get(KEY) or secrets.token_urlsafe(16)
    if served.host not in _LOCAL:
        print(f"--host {served.host}: others on the network reach it; what they send, the key too, is not encrypted.")
    log = None if quiet.is_verbose() else _log_file()
    try:
        with interrupted_by_sigterm(), VLLMServer(served, key, log) as server:
            print("vLLM starts; that takes half a minute or more." + (f" Its log: {log}" if log else ""), flush=True)
            seconds = server.wait_until_ready()
            _print_ready(served, key, seconds)
            server.wait()
    except KeyboardInterrupt:
        print("ended")
    except ServerError as error:
        print(f"proxmo serve: {error}", file=sys.stderr)
        return 1
    return 0


def _log_file() -> Path:
    number, name = tempfile.mkstemp(prefix="proxmo_serve_", suffix=".log")
    os.close(number)
    return Path(name)


def _print_ready(served: Served, key: str, seconds: float) -> None:
    from proxmo_rllib.serving.command import POLICY

    asked = json.dumps({"model": POLICY, "messages": [{"role": "user", "content": "Hello"}]})
    print(f"ready after {seconds:.0f} s: {served.url}/v1   model: {POLICY}   key: {key}   (Ctrl-C ends)")
    print(
        f"  curl {served.url}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(asked)}"
    )
    print(f"  proxmo chat {served.url}/v1 --api-key {key}", flush=True)
