"""FSDP2 with one rank (NCCL on a GPU, gloo on a CPU) beside the same learner unsharded: figures, speed, memory.

A case is a type. Both read the same files, as a run's do; in float32 a step has to leave the same weights.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import device, models
from benchmarks.gpu.gradients import distance

#: Of what the step changes: in float32 the sums alone are made in another order.
_TOLERANCE = 1e-2
_GROUPS = 2


def measure(case: str, tiny: bool) -> dict[str, Any]:
    """What is left of a step, and what steps cost."""
    folder = _written(tiny)
    plain = _learned(folder, case, tiny, sharded=False)
    _meet()
    sharded = _learned(folder, case, tiny, sharded=True)
    moved = sum(float((plain["weights"][name] - before).square().sum()) for name, before in plain["before"].items())
    apart = sum(float((plain["weights"][name] - w).square().sum()) for name, w in sharded["weights"].items())
    apart = (apart / moved) ** 0.5
    gradient = distance(sharded["gradient"], plain["gradient"])
    return {
        "backend": torch.distributed.get_backend(),
        "weights_apart": apart,
        "equal": apart <= _TOLERANCE if case == "float32" else None,
        "gradient_difference": gradient["difference"],
        **sharded["figures"],
        **{f"unsharded_{key}": value for key, value in plain["figures"].items()},
    }


def _learned(folder: Path, dtype: str, tiny: bool, *, sharded: bool) -> dict[str, Any]:
    """A learner's weights before and after its first step, its gradient, and the figures of the steps after it."""
    from proxmo_rllib.learner.sharding import bring_to_rest

    device.let_go()
    config = models.learner_config(folder, dtype)
    if sharded:
        config.learners(num_learners=1, sharding="fsdp2")
    learner = models.build_learner(config)
    lm = learner.policy.lm
    before = _copies(lm)
    groups = models.groups_for("append", "0.5b", tiny, _GROUPS)
    models.update(learner, groups)
    bring_to_rest(lm)
    gradient = {name: _whole(p.grad) for name, p in lm.named_parameters() if p.grad is not None}
    weights = _copies(lm)
    device.let_go()
    tokens = sum(group.num_tokens for group in groups)
    seconds = min(device.seconds_of(lambda: models.update(learner, groups)) for _ in range(2))
    figures = {"tok_per_s": tokens / seconds, **device.peaks()}
    return {"before": before, "weights": weights, "gradient": gradient, "figures": figures}


def _copies(lm: Any) -> dict[str, torch.Tensor]:
    return {name: _whole(parameter) for name, parameter in lm.named_parameters()}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """On the host: there are copies of both learners."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().to("cpu", torch.float32, copy=True)


@functools.cache
def _written(tiny: bool) -> Path:
    """A folder with the model's files, in bfloat16."""
    place = _scratch().name
    models.random_causal_lm(models.folder("0.5b", tiny), torch.bfloat16).save_pretrained(place)
    device.let_go()
    return Path(place)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="proxmo_gpu_")


@functools.cache
def _meet() -> None:
    """A group of this process alone."""
    from proxmo_rllib.machine.own_cluster import loopback_settings

    for name, value in loopback_settings().items():  # as a run has it
        os.environ.setdefault(name, value)
    if device.is_gpu():
        torch.cuda.set_device(device.device())
    meeting = Path(_scratch().name) / "meeting"
    torch.distributed.init_process_group(device.collectives(), init_method=f"file://{meeting}", rank=0, world_size=1)
