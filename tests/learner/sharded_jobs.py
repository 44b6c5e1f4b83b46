"""What the processes of a sharded learner are asked to do in tests; `Ranks` calls these in each."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.learner import GroupedTrainingData
from proxmo_rllib.learner.sharding import bring_to_rest, is_sharded
from proxmo_rllib.types import Group

SPACES = {DEFAULT_MODULE_ID: (AnyText(), AnyText())}


def make_config(folder: Path, num_learners: int, *, sharding: Any = "fsdp2", dtype: str = "float32", **training: Any):
    """As a run's; the episodes are made up, so that no engine agrees with the learner."""
    checkpointing = training.pop("gradient_checkpointing", False)
    return (
        ProxMOConfig()
        .environment("env_wrappers/ALFWorld-v0")
        .policy(pretrained=str(folder), dtype=dtype, gradient_checkpointing=checkpointing)
        .inference(max_kl_to_engine=1e6)
        .training(**{"group_size": 3, "num_groups": 4, "lr": 1e-3, "max_tokens_per_microbatch": 60} | training)
        .learners(num_learners=num_learners, num_gpus_per_learner=0, sharding=sharding if num_learners else None)
    )


def build(folder: Path, num_learners: int, **settings: Any) -> Any:
    """A learner in this process, one of so many."""
    return make_config(folder, num_learners, **settings).build_learner(spaces=SPACES)


def train(learner: Any, groups: Sequence[Group], *, num_epochs: int = 1) -> dict[str, float]:
    """An update. Returns the numbers that the learner logged of its module."""
    data = GroupedTrainingData(episodes=[episode for group in groups for episode in group.episodes])
    stats = learner.update(training_data=data, num_epochs=num_epochs)
    return {key: value.peek() for key, value in stats[DEFAULT_MODULE_ID].items() if hasattr(value, "peek")}


def whole(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().float().numpy().copy()


def seen(learner: Any) -> dict[str, dict[str, np.ndarray]]:
    """Weights and gradients, whole."""
    bring_to_rest(learner.policy.lm)
    parameters = dict(learner.policy.lm.named_parameters())
    return {
        "weights": {name: whole(p) for name, p in parameters.items()},
        "gradients": {name: whole(p.grad) for name, p in parameters.items() if p.grad is not None},
    }


def learn(rank: int, folder: Path, shares: Sequence[Sequence[Sequence[Group]]], settings: Mapping[str, Any]) -> Any:
    """Updates one after the other, each on the rank's share. Returns what is seen after the first and the last."""
    learner = build(folder, len(shares[0]), **settings)
    logged, first = [], None
    for update in shares:
        logged.append(train(learner, update[rank]))
        first = first or seen(learner)
    probe = learner.policy.score(list(range(20)), 4), learner.policy.score(list(range(20)), 4, exact=True)
    held = sum(p.to_local().numel() for p in learner.policy.lm.parameters())
    return {
        "first": first,
        "last": seen(learner),
        "logged": logged,
        "probe": [p.numpy() for p in probe],
        "held": held,
        "is_sharded": is_sharded(learner.policy.lm),
        "attention": learner.policy.lm.config._attn_implementation,
        "state": learner.get_state(),
    }
