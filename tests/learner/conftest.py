"""Learners on a tiny random model, without Ray, and groups of made-up episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.learner import GroupedTrainingData, ProxMOLearner
from proxmo_rllib.types import Episode, Group, Status, Turn

SPACES = {DEFAULT_MODULE_ID: (AnyText(), AnyText())}
VOCAB = 300  # the tiny policy has more


def make_turn(rng: np.random.Generator, *, appended: bool, policy_version: int = 0) -> Turn:
    response = rng.integers(0, VOCAB, rng.integers(1, 6)).astype(np.int32)
    return Turn(
        context_ids=rng.integers(0, VOCAB, rng.integers(2, 12)).astype(np.int32),
        appended=appended,
        response_ids=response,
        # Near those of a random model, so that some ratios are clipped and some are not.
        logprobs=(-np.log(600) + 0.3 * rng.standard_normal(len(response))).astype(np.float32),
        policy_version=policy_version,
        anchor=f"You see thing {rng.integers(3)}.",
        response="go",
        action="go",
        action_valid=bool(rng.integers(2)),
        reward=float(rng.standard_normal()),
    )


def make_groups(
    num_groups: int, size: int, *, append: bool = True, max_turns: int = 5, seed: int = 0, empty: int = 0
) -> list[Group]:
    """Groups of random episodes; the first `empty` episodes of the first group have no turn."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(num_groups):
        episodes = []
        for index in range(size):
            count = 0 if number == 0 and index < empty else int(rng.integers(1, max_turns + 1))
            turns = tuple(make_turn(rng, appended=append and place > 0) for place in range(count))
            # One of each in every group, so that there are advantages.
            status = [Status.SUCCESS, Status.FAILURE, Status.TRUNCATED][index % 3]
            episodes.append(
                Episode(f"g{number}-{index}", f"g{number}", f"task-{number}", "kind", number, turns, status)
            )
        groups.append(Group(f"g{number}", f"task-{number}", tuple(episodes)))
    return groups


def training_data(groups: Sequence[Group]) -> GroupedTrainingData:
    return GroupedTrainingData(episodes=[episode for group in groups for episode in group.episodes])


@pytest.fixture
def config(tiny_policy: Path) -> ProxMOConfig:
    return (
        ProxMOConfig()
        .environment("env_wrappers/ALFWorld-v0")
        .policy(pretrained=tiny_policy)
        # The episodes are made up: no engine sampled them.
        .inference(max_kl_to_engine=1e6)
        .training(group_size=3, num_groups=2, lr=1e-3, grad_clip=None)
    )


def build(config: ProxMOConfig) -> ProxMOLearner:
    learner: ProxMOLearner = config.copy(copy_frozen=False).build_learner(spaces=SPACES)
    return learner


def update(learner: ProxMOLearner, groups: Sequence[Group], *, num_epochs: int = 1) -> dict[str, float]:
    """Trains, and returns the numbers that the learner logged of its module."""
    stats = learner.update(training_data=training_data(groups), num_epochs=num_epochs)
    return {key: value.peek() for key, value in stats[DEFAULT_MODULE_ID].items() if hasattr(value, "peek")}


def gradients(learner: ProxMOLearner) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in learner.policy.lm.named_parameters() if p.grad is not None}


def weights(learner: ProxMOLearner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.policy.lm.named_parameters()}


def perturb(learner: ProxMOLearner, scale: float = 0.05, seed: int = 0) -> None:
    """Moves the policy away from the reference, and its distributions away from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.policy.lm.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def tools() -> Any:
    """The functions above, for tests."""

    class Tools:
        build: Callable[..., Any] = staticmethod(build)
        update: Callable[..., Any] = staticmethod(update)
        gradients: Callable[..., Any] = staticmethod(gradients)
        weights: Callable[..., Any] = staticmethod(weights)
        perturb: Callable[..., Any] = staticmethod(perturb)
        groups: Callable[..., Any] = staticmethod(make_groups)
        training_data: Callable[..., Any] = staticmethod(training_data)
        spaces = SPACES

    return Tools
