"""Turns a second of the inference engines on a conversation that grows: short answers, shared prefixes, many at once.

    python -m benchmarks.inference [--model FOLDER] [--pool] [--engines 2] [--case 'vllm block_size=128'] ...

Without a model, a random Qwen2 with 4 layers of 128 is built. A case is a kind, then settings: of EngineConfig where it
has them (dtype, threads, max_num_seqs), else of vLLM. CPU times are of all processes that a turn goes through, and do
not change much with other work on the machine; with --pool, requests go through Ray as the environment runners' do.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch

from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.machine.own_cluster import guarded
from proxmo_rllib.types import Completion, SamplingParams

FIRST_PROMPT, OBSERVATION, RESPONSE, LONGEST = 100, 20, 5, 400  # tokens
WARM_UP_S = 3.0
CASES = ("vllm", "vllm block_size=128", "vllm enable_prefix_caching=false", "transformers")
Processes = dict[str, list[psutil.Process]]  # by name
Generate = Callable[[np.ndarray, SamplingParams, int], Awaitable[Completion]]


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a checkpoint; a tiny random one by default")
    parser.add_argument("--case", action="append", help="kind and settings; may be given several times")
    parser.add_argument("--concurrency", type=int, default=64, help="conversations at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measurement, for each case")
    parser.add_argument("--pool", action="store_true", help="through a Ray actor instead of in this process")
    parser.add_argument("--engines", type=int, default=1, help="how many, with --pool; they share the conversations")
    arguments = parser.parse_args()
    if arguments.engines < 1 or (arguments.engines > 1 and not arguments.pool):
        parser.error(f"--engines {arguments.engines}: one in this process, or at least one with --pool")
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as folder:
        model = arguments.model or tiny_model(Path(folder) / "model")
        if arguments.pool:
            with guarded():
                ray.init(num_cpus=2 * arguments.engines, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        print(f"{'case':44}{'turns/s':>9}{'CPU ms/turn':>13}   of which by process")
        for case in arguments.case or CASES:
            run = through_pool if arguments.pool else in_process
            turns, seconds, cpu = asyncio.run(run(engine_config(model, case), arguments))
            shares = ", ".join(f"{name} {1e3 * used / turns:.2f}" for name, used in cpu.items())
            print(f"{case:44}{turns / seconds:9.1f}{1e3 * sum(cpu.values()) / turns:13.2f}   {shares}", flush=True)


def tiny_model(folder: Path) -> str:
    """Saves a random Qwen2 of a million parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def engine_config(model: str, case: str) -> EngineConfig:
    """Reads a case such as 'vllm dtype=bfloat16 block_size=64'."""
    kind, *settings = case.split()
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    names = {field.name for field in dataclasses.fields(EngineConfig)}
    for setting in settings:
        name, _, text = setting.partition("=")
        value = text if (text.isalpha() and text not in ("true", "false")) or name == "dtype" else json.loads(text)
        (ours if name in names else theirs)[name] = value
    return EngineConfig(**{"model": model, "kind": kind, "num_cpus": 0.5, **ours, "engine_kwargs": theirs})


async def in_process(config: EngineConfig, arguments: argparse.Namespace) -> tuple[int, float, dict[str, float]]:
    """Turns, seconds and CPU seconds by process, with the engine here."""
    engine = build_engine(config)
    try:
        me = psutil.Process()
        processes = by_name(me.children(recursive=True)) | {"caller": [me]}
        return await measure(
            lambda ids, params, _: engine.generate(ids, params), processes, arguments, _vocab_size(config)
        )
    finally:
        engine.close()


async def through_pool(config: EngineConfig, arguments: argparse.Namespace) -> tuple[int, float, dict[str, float]]:
    """Turns, seconds and CPU seconds by process, with each engine in a Ray actor."""
    pool = await asyncio.to_thread(InferencePool, config, arguments.engines)
    try:
        actors = [psutil.Process(await handle.check_health.remote()) for handle in pool.handles]
        processes = by_name([child for actor in actors for child in actor.children(recursive=True)])
        processes |= {"caller": [psutil.Process()], "actor": actors}
        return await measure(pool.client().generate, processes, arguments, _vocab_size(config))
    finally:
        pool.stop()


async def measure(
    generate: Generate, processes: Processes, arguments: argparse.Namespace, vocab_size: int
) -> tuple[int, float, dict[str, float]]:
    """Turns, seconds and CPU seconds by process while `concurrency` conversations of random tokens go on."""
    turns = 0

    async def converse(number: int) -> None:
        nonlocal turns
        rng = np.random.default_rng(number)
        while True:
            prompt = rng.integers(0, vocab_size, FIRST_PROMPT)
            while len(prompt) + RESPONSE <= LONGEST:
                completion = await generate(prompt, SamplingParams(1.0, RESPONSE), number)
                prompt = np.concatenate([prompt, completion.token_ids, rng.integers(0, vocab_size, OBSERVATION)])
                turns += 1

    tasks = [asyncio.create_task(converse(number)) for number in range(arguments.concurrency)]
    await asyncio.wait(tasks, timeout=WARM_UP_S)
    before, turns, start = _cpu_seconds(processes), 0, time.perf_counter()
    await asyncio.wait(tasks, timeout=arguments.seconds)
    seconds, after = time.perf_counter() - start, _cpu_seconds(processes)
    measured = turns
    for task in tasks:
        if task.done():
            task.result()  # only an error ends it
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return measured, seconds, {name: used - before[name] for name, used in after.items() if used - before[name] > 0.01}


def _vocab_size(config: EngineConfig) -> int:
    from transformers import AutoConfig

    size: int = AutoConfig.from_pretrained(config.model, trust_remote_code=False).get_text_config().vocab_size
    return size


def by_name(processes: Iterable[psutil.Process]) -> Processes:
    """Processes that do the same, under one name."""
    found: Processes = {}
    for process in processes:
        name = process.name()
        kind = next((kind for kind in ("EngineCore", "Worker_TP") if kind in name), name)
        found.setdefault(kind, []).append(process)
    return found


def _cpu_seconds(processes: Processes) -> dict[str, float]:
    return {name: sum(sum(process.cpu_times()[:2]) for process in same) for name, same in processes.items()}


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    main()
