"""`proxmo endpoint`: serve a policy to an agent program through OpenAI's API, and record what they did.

    proxmo endpoint runs/quickstart-20260102-030405 --output captured/quickstart
    proxmo endpoint Qwen/Qwen2.5-0.5B-Instruct --output captured/qwen --port 8700 --max-model-len 8192

A program takes http://127.0.0.1:PORT/episodes/ID/v1 as its base URL, with an ID of its own for each episode, and the
token as its API key. A POST to .../episodes/ID/reward ends the episode: `{"reward": 1.0, "success": true}`. The token
is $PROXMO_ENDPOINT_TOKEN, or made and printed. Ctrl-C ends it; `proxmo view FOLDER` shows the episodes. Nothing is
learned here: docs/endpoint.md has how a run is trained from such programs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.cli.session import prepare_environment

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LENGTH, _RESPONSE_TOKENS = 4096, 512  # of a model that nothing says more of


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo endpoint", description="Serve a policy through OpenAI's API, and record the episodes."
    )
    parser.add_argument("policy", metavar="MODEL|CHECKPOINT", help="a run, a checkpoint, a model's folder or hub name")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the record is written")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")
    parser.add_argument("--model-name", default="policy", help="by which programs ask for it (default: policy)")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm", help="(default: vllm)")
    parser.add_argument("--temperature", type=float, default=1.0, help="where a request says none (default: 1)")
    parser.add_argument("--max-model-len", type=int, help="tokens of prompt and response (default: the run's, or 4096)")
    parser.add_argument("--max-response-tokens", type=int, help="(default: the run's, or 512)")
    parser.add_argument("--max-turns", type=int, default=1000, help="responses of an episode (default: 1000)")
    parser.add_argument("--idle", type=float, default=3600.0, metavar="SECONDS", help="given up after (default: 3600)")
    arguments = parser.parse_args(argv)
    for name in ("max_model_len", "max_response_tokens", "max_turns", "idle"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} {value}: it is above 0")
    if not 0 <= arguments.port < 65536:
        parser.error(f"--port {arguments.port}: give a number from 0, for a free one, to 65535")
    if not 0 <= arguments.temperature <= 2:
        parser.error(f"--temperature {arguments.temperature}: it is a number from 0 to 2")
    return arguments


def main(argv: list[str]) -> int:
    """Serve; see the module's docstring."""
    arguments = parse(argv)
    prepare_environment(os.environ, Path.home(), None)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        config = _config(arguments)
        asyncio.run(_serve(arguments, config))
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"proxmo endpoint: {error}", file=sys.stderr)
        return 1
    return 0


def _config(arguments: argparse.Namespace) -> ProxMOConfig:
    """How the policy is prompted: as it was trained, if that is known."""
    from proxmo_rllib.cli.policies import find_policy
    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.model_checks import check_model
    from proxmo_rllib.policies.loading import max_positions

    policy = find_policy(arguments.policy)
    positions = max_positions(policy.pretrained)
    config = policy.config
    if config is None:
        length = min(_LENGTH, positions or _LENGTH)
        config = ProxMOConfig().inference(max_model_len=length, max_response_tokens=min(_RESPONSE_TOKENS, length // 2))
    config.policy(pretrained=policy.pretrained)
    if arguments.max_model_len is not None:
        config.inference(max_model_len=arguments.max_model_len)
    if arguments.max_response_tokens is not None:
        config.inference(max_response_tokens=arguments.max_response_tokens)
    if config.max_response_tokens >= config.max_model_len:
        raise ValueError(
            f"--max-response-tokens {config.max_response_tokens}: it must be below --max-model-len "
            f"{config.max_model_len}."
        )
    if positions is not None and config.max_model_len > positions:
        raise ValueError(f"--max-model-len {config.max_model_len}: {policy.pretrained} has {positions} positions.")
    check_model(policy.pretrained, arguments.engine, None, 1)
    return config


async def _serve(arguments: argparse.Namespace, config: ProxMOConfig) -> None:
    from proxmo_rllib.endpoint.capture import Capture, CaptureLimits
    from proxmo_rllib.endpoint.environment import TOKEN_VARIABLE
    from proxmo_rllib.endpoint.server import EndpointServer
    from proxmo_rllib.inference.engine import EngineConfig, build_engine
    from proxmo_rllib.rollouts.environments import chat_format

    limits = CaptureLimits(
        max_turns=arguments.max_turns,
        max_prompt_tokens=config.max_model_len - config.max_response_tokens,
        max_response_tokens=config.max_response_tokens,
        idle_s=arguments.idle,
    )
    chat = chat_format(config)
    token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)
    engine: Any = build_engine(
        EngineConfig(
            model=str(config.pretrained),
            kind=arguments.engine,
            dtype=config.dtype,  # type: ignore[arg-type]
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
        )
    )
    try:
        capture = Capture(engine, chat, arguments.output, limits, arguments.temperature)
        server = EndpointServer(arguments.host, arguments.port, token, arguments.model_name, capture.open)
        try:
            # As Ctrl-C does: a process that is ended otherwise leaves vLLM's behind.
            task = asyncio.current_task()
            assert task is not None, "this is a coroutine"
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            _say(arguments, server, made=TOKEN_VARIABLE not in os.environ)
            with contextlib.suppress(asyncio.CancelledError):
                await capture.watch(server)
        finally:
            server.stop()
            print(f"{capture.num_recorded} episodes are in {arguments.output}", flush=True)
    finally:
        engine.close()


def _say(arguments: argparse.Namespace, server: Any, made: bool) -> None:
    print(f"serving {arguments.policy} as {arguments.model_name!r}   (Ctrl-C ends)")
    print(f"  OPENAI_BASE_URL={server.url}/episodes/ID/v1   an ID of yours for each episode")
    if made:
        print(f"  OPENAI_API_KEY={server.token}")
    print(f'  POST {server.url}/episodes/ID/reward   {{"reward": 1.0, "success": true}}', flush=True)
    if arguments.host not in _LOOPBACK:
        print(f"  {arguments.host}: others reach it, with the token, and nothing is encrypted", flush=True)
