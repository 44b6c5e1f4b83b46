"""Where the device's time goes in one optimizer step: kernels of a GPU, operators on a CPU. Cases as `learner`'s."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import device, models
from benchmarks.gpu.learner import prepare

_SHOWN = 12


def measure(case: str, tiny: bool) -> dict[str, Any]:
    """The share of a step in which the device computes, and the largest parts of it."""
    learner, groups = prepare(case, tiny)
    models.update(learner, groups)
    alone = device.seconds_of(lambda: models.update(learner, groups))
    activity = ProfilerActivity.CUDA if device.is_gpu() else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        watched = device.seconds_of(lambda: models.update(learner, groups))
    taken = {event.key: _own_microseconds(event) / 1e6 for event in seen.key_averages()}
    total = sum(taken.values())
    largest = sorted(taken, key=taken.__getitem__, reverse=True)[:_SHOWN]
    return {
        "s_a_step": alone,
        "s_watched": watched,
        "device_s": total,
        "busy": min(1.0, total / alone),
        "largest": [[name[:90], taken[name] / total] for name in largest],
    }


def _own_microseconds(event: Any) -> float:
    """Of what an operator or a kernel does itself."""
    if device.is_gpu():
        return float(event.self_device_time_total) if event.device_type == torch.autograd.DeviceType.CUDA else 0.0
    return float(event.self_cpu_time_total)
