"""Counts what vLLM's EngineCore computes: named as its worker extension, it is imported there and nowhere else.

`counted(file)` gives the engine arguments; the counts are in the file, which `read` reads.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxmo_rllib.inference.vllm_internals import WeightSync

_VARIABLE = "BENCHMARK_ENGINE_STEPS"


@dataclass(frozen=True, slots=True)
class Steps:
    """What was computed.

    Attributes:
        steps: forward passes.
        tokens: in all of them.
        requests: in all of them.
        seconds: of all of them.
    """

    steps: int
    tokens: int
    requests: int
    seconds: float

    def since(self, before: Steps) -> Steps:
        """What came after."""
        return Steps(
            self.steps - before.steps,
            self.tokens - before.tokens,
            self.requests - before.requests,
            self.seconds - before.seconds,
        )


class CountedSteps(WeightSync):
    """The worker extension."""


def counted(file: Path) -> dict[str, Any]:
    """Engine arguments with which an engine that is started by this process, or by a child of it, counts."""
    np.zeros(4, np.int64).tofile(file)
    os.environ[_VARIABLE] = str(file)
    return {"worker_extension_cls": f"{__name__}.{CountedSteps.__name__}"}


def read(file: Path) -> Steps:
    """The counts so far."""
    steps, tokens, requests, nanoseconds = np.fromfile(file, np.int64).tolist()
    return Steps(steps, tokens, requests, nanoseconds / 1e9)


def _count() -> None:
    """Has the model runner of this process count."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    counts = np.memmap(os.environ[_VARIABLE], np.int64, "r+", shape=(4,))
    compute = GPUModelRunner.execute_model

    def execute_model(self: Any, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter_ns()
        result = compute(self, scheduled, *args, **kwargs)
        if scheduled.total_num_scheduled_tokens:
            tokens = scheduled.total_num_scheduled_tokens
            spent = time.perf_counter_ns() - started
            np.add(counts, (1, tokens, len(scheduled.num_scheduled_tokens), spent), out=counts)
        return result

    GPUModelRunner.execute_model = execute_model


if "EngineCor" in Path("/proc/self/comm").read_text():  # 15 characters of a name are kept
    _count()
