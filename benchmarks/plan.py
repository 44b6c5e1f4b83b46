"""Plans beside each other, and beside what was measured.

    python -m benchmarks.plan                         # what fits which GPUs, computed
    python -m benchmarks.plan --into docs/plan.md     # writes it into the page
    python -m benchmarks.plan --measure               # peaks of real processes beside the planned ones: ten minutes

A measured learner is a process that trains on made-up episodes, two optimizer steps of two micro-batches each, every
token of them in the loss; its peak is the kernel's (VmHWM). A measured engine plays 64 prompts, which fill its cache or
are 900 tokens long, and takes new weights; its peak is the sum over its processes of what each has for itself and its
part of what they share (PSS).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxmo_rllib.planning import Hardware, PlannedModel, PlannedSettings
from proxmo_rllib.planning.engine_memory import cached_sequences, engine_memory
from proxmo_rllib.planning.hardware import GIB, Speed
from proxmo_rllib.planning.learner_memory import learner_memory, leaves_room

NO_HOST = Speed("not asked for", {}, 1.0, 1.0, 0.0, measured=False)
MODELS = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B")
CARDS = (24, 80, 141)
LENGTH = 2048
MARKS = ("<!-- computed: python -m benchmarks.plan --into docs/plan.md -->\n", "<!-- end of what is computed -->\n")
TINY, SMOL = "asset:alfworld-tiny", "HuggingFaceTB/SmolLM2-135M"


@dataclass(frozen=True, slots=True)
class LearnerCase:
    """A learner to be measured."""

    model: str
    dtype: str
    gradient_checkpointing: bool
    tokens: int
    length: int


LEARNERS = (
    LearnerCase(TINY, "float32", False, 8192, 512),
    LearnerCase(TINY, "bfloat16", False, 8192, 512),
    LearnerCase(SMOL, "float32", False, 1024, 256),
    LearnerCase(SMOL, "float32", True, 1024, 256),
    LearnerCase(SMOL, "bfloat16", False, 1024, 256),
)
ENGINES = ((TINY, "float32"), (SMOL, "float32"), (SMOL, "bfloat16"))


def computed() -> str:
    """Both tables, as Markdown."""
    models = {name: PlannedModel.read(name) for name in MODELS}
    learners = [
        [name.partition("/")[2], "adapters" if lora else "all weights", *(_fitting(model, lora, gb) for gb in CARDS)]
        for name, model in models.items()
        for lora in (False, True)
    ]
    engines = [[name.partition("/")[2], *(_cached(model, gb) for gb in CARDS)] for name, model in models.items()]
    cards = [f"{gb} GB" for gb in CARDS]
    return (
        f"Learners, bfloat16, sequences of {LENGTH:,} tokens:\n\n"
        + _table(["model", "trained", *cards], learners)
        + f"\nAn engine on one GPU: sequences of {LENGTH:,} tokens that its cache holds.\n\n"
        + _table(["model", *cards], engines)
    )


def _fitting(model: PlannedModel, lora: bool, gb: int) -> str:
    """The fewest GPUs on which learners fit, and the largest micro-batch there."""
    hardware = Hardware(None, gb, None, NO_HOST)
    for number in (1,) if lora else (1, 2, 4, 8):  # adapters are trained on whole weights
        for checkpointing in (False, True):
            settings = PlannedSettings(
                max_model_len=LENGTH,
                gradient_checkpointing=checkpointing,
                lora={"rank": 16} if lora else None,
                num_learners=number,
                sharding="fsdp2" if number > 1 else None,
            )
            fitting = ""
            for tokens in (LENGTH, 4 * LENGTH, 8 * LENGTH) if leaves_room(model, settings, hardware) else ():
                demand = learner_memory(model, replace(settings, max_tokens_per_microbatch=tokens), hardware)[0]
                if not demand.fits:
                    break
                words = ["1 GPU" if number == 1 else f"{number} GPUs, fsdp2", *["checkpointing"] * checkpointing]
                fitting = ", ".join([*words, f"{tokens:,} tokens", f"{demand.bytes / GIB:.0f} GiB"])
            if fitting:
                return fitting
    return "not on one GPU" if lora else "not on 8 GPUs"


def _cached(model: PlannedModel, gb: int) -> str:
    hardware = Hardware(None, gb, None, NO_HOST)
    for split in (1, 2, 4, 8):
        settings = PlannedSettings(max_model_len=LENGTH, tensor_parallel_size=split)
        held = cached_sequences(model, settings, hardware)
        if held >= 1:
            return f"{held:,.0f}" + (f" on {split} GPUs" if split > 1 else "")
    return "not on 8 GPUs"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def with_tables(page: str, tables: str) -> str:
    """A page with the computed tables in the place of those that it has."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{tables}\n{MARKS[1]}{after}"


def planned_learner(case: LearnerCase) -> float:
    """Bytes of a learner's process, as planned."""
    settings = PlannedSettings(
        dtype=case.dtype,
        gradient_checkpointing=case.gradient_checkpointing,
        num_gpus_per_learner=0,
        num_learners=0,
        max_model_len=case.length,
        max_tokens_per_microbatch=case.tokens,
    )
    return learner_memory(PlannedModel.read(case.model), settings, Hardware(0, 0, None, NO_HOST))[0].bytes


def planned_engine(model: str, dtype: str) -> float:
    """Bytes of an engine's processes, as planned."""
    settings = PlannedSettings(dtype=dtype, num_gpus_per_engine=0, max_model_len=1024, max_num_seqs=64)
    return engine_memory(PlannedModel.read(model), settings, Hardware(0, 0, None, NO_HOST))[0].bytes


def measured(kind: str, *words: str) -> float:
    """Peak bytes of a process of its own that trains, or plays."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.plan", f"--{kind}", folder, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        return float(json.loads(done.stdout.splitlines()[-1]))


def measured_learner(case: LearnerCase) -> float:
    """Peak bytes of a learner's process."""
    return measured(
        "learner", case.model, case.dtype, str(case.gradient_checkpointing), str(case.tokens), str(case.length)
    )


def compare(engines: bool) -> None:
    """Prints measured peaks beside planned ones, a row as soon as it is there."""
    print("| process | model | settings | measured | planned | |\n|---|---|---|---|---|---|")

    def row(process: str, model: str, words: str, real: float, planned: float) -> None:
        name = model.rpartition("/")[2].removeprefix("asset:")
        sizes = f"{real / GIB:.2f} GiB | {planned / GIB:.2f} GiB | {100 * (planned / real - 1):+.0f}%"
        print(f"| {process} | {name} | {words} | {sizes} |", flush=True)

    for case in LEARNERS:
        words = f"{case.dtype}, {case.tokens:,} tokens" + ", checkpointing" * case.gradient_checkpointing
        row("learner", case.model, words, measured_learner(case), planned_learner(case))
    for model, dtype in ENGINES if engines else ():
        row(
            "vLLM engine",
            model,
            f"{dtype}, 64 sequences",
            measured("engine", model, dtype),
            planned_engine(model, dtype),
        )


def _model_in(folder: str, model: str) -> str:
    """The asset, or a folder with random weights; another process makes them, so that this one's peak has them once."""
    if model == TINY:
        return model
    subprocess.run([sys.executable, "-m", "benchmarks.plan", "--write", folder, model], check=True)
    return folder


def write(folder: str, model: str) -> None:
    """A model of a shape, with random weights."""
    from transformers import AutoModelForCausalLM

    from proxmo_rllib.planning.model_shape import read_config

    config = read_config(model)
    config.bos_token_id, config.eos_token_id = 1, 2
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)


def train(folder: str, model: str, dtype: str, checkpointing: str, tokens: str, length: str) -> None:
    """Trains, and prints the peak of this process."""
    pretrained = _model_in(folder, model)
    import numpy as np
    from ray.rllib.core import DEFAULT_MODULE_ID

    from env_wrappers.core import AnyText
    from proxmo_rllib import ProxMOConfig
    from proxmo_rllib.learner import GroupedTrainingData
    from proxmo_rllib.types import Episode, Status, Turn

    rng = np.random.default_rng(0)
    number = 2 * max(1, int(tokens) // int(length))

    def turn() -> Turn:
        response = rng.integers(0, 700, int(length) - 2).astype(np.int32)
        return Turn(
            context_ids=rng.integers(0, 700, 2).astype(np.int32),
            appended=False,
            response_ids=response,
            logprobs=np.full(len(response), -6.0, np.float32),
            policy_version=0,
            anchor="a room",
            response="go",
            action="go",
            action_valid=True,
            reward=float(rng.standard_normal()),
        )

    episodes = [
        Episode(
            f"{i}", f"g{i // 2}", f"task-{i // 2}", "kind", i // 2, (turn(),), (Status.SUCCESS, Status.FAILURE)[i % 2]
        )
        for i in range(number)
    ]
    config = (
        ProxMOConfig()
        .environment("env_wrappers/ALFWorld-v0")
        .policy(pretrained=pretrained, dtype=dtype, gradient_checkpointing=checkpointing == "True")
        .inference(max_kl_to_engine=1e9, max_model_len=int(length))
        .training(group_size=2, num_groups=number // 2, lr=1e-4, max_tokens_per_microbatch=int(tokens))
    )
    learner: Any = config.build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    for _ in range(2):
        learner.update(training_data=GroupedTrainingData(episodes=episodes), num_epochs=1)
    # Not getrusage's: a process begins with the peak of the one that has started it.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    print(int(peak[1]) * 1024)


def serve(folder: str, model: str, dtype: str) -> None:
    """Plays with an engine, and prints the peak of its processes."""
    import ray  # noqa: F401 (an engine's actor has it)

    from proxmo_rllib.inference.engine import EngineConfig
    from proxmo_rllib.inference.vllm_engine import VLLMEngine
    from proxmo_rllib.policies.loading import resolve_pretrained

    path = resolve_pretrained(_model_in(folder, model))
    peak = _watch(_tree_bytes)
    engine = VLLMEngine(EngineConfig(model=path, dtype=dtype, max_model_len=1024, max_num_seqs=64))  # type: ignore[arg-type]
    asyncio.run(_play(engine, path, dtype))
    highest = peak()
    engine.close()
    print(highest)


async def _play(engine: Any, path: str, dtype: str) -> None:
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    from proxmo_rllib.types import SamplingParams

    rng = np.random.default_rng(0)
    prompt = 900 if path.endswith(TINY.removeprefix("asset:")) else 200
    params = SamplingParams(max_tokens=20, temperature=1.0, stop_token_ids=(), seed=1)
    await asyncio.gather(*(engine.generate(rng.integers(0, 700, prompt), params) for _ in range(64)))
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(f"{path}/model.safetensors").items()}
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file(state, file.name)
        del state
        await engine.load_weights(file.name, 1)


def _tree_bytes() -> float:
    import psutil

    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile
    return float(total)


def _watch(now: Callable[[], float]) -> Callable[[], float]:
    """Looks every half second, and returns what says the highest so far."""
    highest = [0.0]

    def look() -> None:
        while True:
            highest[0] = max(highest[0], now())
            time.sleep(0.5)

    threading.Thread(target=look, daemon=True).start()
    return lambda: max(highest[0], now())


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--into", type=Path, metavar="PAGE", help="write the computed tables into a page")
    parser.add_argument("--measure", action="store_true", help="measure learners and engines beside their plans")
    parser.add_argument("--learners-only", action="store_true", help="measure no engine, which takes vLLM")
    for kind in ("learner", "engine", "write"):
        parser.add_argument(f"--{kind}", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(*arguments.write)
    elif arguments.learner:
        train(*arguments.learner)
    elif arguments.engine:
        serve(*arguments.engine)
    elif arguments.measure:
        compare(engines=not arguments.learners_only)
    elif arguments.into:
        tables = computed()
        page = with_tables(arguments.into.read_text(encoding="utf-8"), tables)
        arguments.into.write_text(page, encoding="utf-8")
    else:
        print(computed())
    return 0


if __name__ == "__main__":
    sys.exit(main())
