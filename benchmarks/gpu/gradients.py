"""The gradient of one step: in bfloat16 against float32, packed against padded, on the same weights and episodes.

A case is a type and a way; all are compared with float32 in padded rows, by PyTorch's SDPA. The objective has no ratio
that could be clipped here and not there.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from benchmarks.gpu import device, models
from benchmarks.gpu.learner import pad

Gradient = dict[str, torch.Tensor]


def measure(case: str, tiny: bool) -> dict[str, Any]:
    """How far a case's gradient is from the reference's."""
    dtype, way = case.split()
    reference = _reference(tiny)
    return {"against": "float32 padded", **distance(gradient(dtype, way, tiny), reference), **device.peaks()}


@functools.cache
def _reference(tiny: bool) -> Gradient:
    return gradient("float32", "padded", tiny)


def gradient(dtype: str, way: str, tiny: bool) -> Gradient:
    """Of a new learner's first step, by the weights' names."""
    device.let_go()
    config = models.learner_config(models.folder("0.5b", tiny), dtype)
    config.training(objective="reinforce", grad_clip=None)
    with models.on_the_device():
        learner = models.build_learner(config)
    if way == "padded":
        pad(learner)
    models.update(learner, models.groups_for("append", "0.5b", tiny, 1))
    return {name: p.grad for name, p in learner.policy.lm.named_parameters() if p.grad is not None}


def distance(given: Gradient, reference: Gradient) -> dict[str, Any]:
    """Cosine of two gradients, norm of their difference by the reference's, and the worst of the weights' own cosines.

    Weights that bear less than a hundredth of the gradient are not looked at one by one.
    """
    dot = squared = squared_reference = squared_difference = 0.0
    own: dict[str, tuple[float, float]] = {}
    for name, wanted in reference.items():
        one, other = given[name].double().flatten(), wanted.double().flatten()
        product, norm, norm_reference = (float(a @ b) for a, b in ((one, other), (one, one), (other, other)))
        dot, squared, squared_reference = dot + product, squared + norm, squared_reference + norm_reference
        squared_difference += float((one - other).square().sum())
        own[name] = (product / max((norm * norm_reference) ** 0.5, 1e-300), norm_reference)
    heavy = {name: cosine for name, (cosine, norm) in own.items() if norm >= 1e-4 * squared_reference}
    worst = min(heavy, key=heavy.__getitem__)
    return {
        "cosine": dot / (squared * squared_reference) ** 0.5,
        "difference": (squared_difference / squared_reference) ** 0.5,
        "norm_ratio": (squared / squared_reference) ** 0.5,
        "worst_cosine": heavy[worst],
        "worst": worst,
    }
