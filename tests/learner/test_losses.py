"""The losses, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from proxmo_rllib.learner.losses import clipped_surrogate, imitation


def surrogate(ratio: float, advantage: float, **settings: float) -> tuple[float, float, dict[str, float]]:
    """Loss, its derivative by the logprob, and what is logged, for one token."""
    old = torch.tensor([-2.0])
    logprob = (old + math.log(ratio)).requires_grad_()
    loss = clipped_surrogate(
        logprob,
        old,
        torch.tensor([advantage]),
        torch.tensor([1.5]),
        torch.ones(1),
        **{"clip_low": 0.2, "clip_high": 0.3, "entropy_coef": 0.0} | settings,
    )
    loss.total.backward()
    assert logprob.grad is not None
    return float(loss.total.detach()), float(logprob.grad), {name: float(value) for name, value in loss.parts.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.25, 2.0, -2.5, False),
        (1.5, 2.0, -2.6, True),  # no reward for going beyond 1 + 0.3
        (0.5, 2.0, -1.0, False),  # too rare now, and good: pulled back
        (0.5, -2.0, 1.6, True),  # no reward for going beyond 1 - 0.2
        (1.5, -2.0, 3.0, False),  # too frequent now, and bad: pulled back
        (0.9, -2.0, 1.8, False),
    ],
)
def test_the_surrogate_is_clipped_on_the_side_that_gains(ratio: float, advantage: float, loss: float, clipped: bool):
    total, derivative, parts = surrogate(ratio, advantage)
    assert total == pytest.approx(loss, rel=1e-5)
    assert derivative == pytest.approx(0.0 if clipped else -ratio * advantage, rel=1e-5)
    assert parts["clip_fraction"] == float(clipped)
    assert parts["approximate_kl_to_old"] == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)


def test_entropy_is_a_bonus():
    assert surrogate(1.0, 0.0, entropy_coef=0.5)[0] == pytest.approx(-0.75)


@pytest.mark.parametrize("difference", [0.0, 0.3, -0.7])
def test_the_k3_estimate(difference: float):
    logprobs = torch.tensor([-1.0, -2.0])
    loss = clipped_surrogate(
        logprobs,
        logprobs,
        torch.zeros(2),
        torch.zeros(2),
        torch.ones(2),
        clip_low=0.2,
        clip_high=0.2,
        entropy_coef=0.0,
        kl_coef=0.5,
        reference_logprobs=logprobs + difference,
    )
    k3 = 2 * (math.exp(difference) - 1 - difference)
    assert float(loss.parts["kl_to_reference"]) == pytest.approx(k3, abs=1e-6)
    assert float(loss.total) == pytest.approx(0.5 * k3, abs=1e-6)
    assert k3 >= 0


def test_a_penalty_needs_a_reference():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="kl_coef"):
        clipped_surrogate(one, one, one, one, one, clip_low=0.2, clip_high=0.2, entropy_coef=0.0, kl_coef=0.1)


def test_importance_weights_the_surrogate_alone():
    one = torch.ones(1)
    loss = clipped_surrogate(
        one, one, 3 * one, 2 * one, one, clip_low=0.2, clip_high=0.2, entropy_coef=0.1, importance=0.5 * one
    )
    assert float(loss.total) == pytest.approx(-0.5 * 3 - 0.1 * 2)


def test_a_weight_scales_a_token_in_every_term():
    def loss(weights: torch.Tensor) -> float:
        terms = torch.tensor([-1.0, -2.0]), torch.tensor([-1.1, -2.2]), torch.tensor([1.0, -2.0]), torch.ones(2)
        settings = {"clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.1, "kl_coef": 0.1}
        return float(clipped_surrogate(*terms, weights, **settings, reference_logprobs=torch.zeros(2)).total)

    only_first, only_second = loss(torch.tensor([1.0, 0.0])), loss(torch.tensor([0.0, 1.0]))
    assert loss(torch.tensor([0.25, 3.0])) == pytest.approx(0.25 * only_first + 3.0 * only_second, rel=1e-5)


def test_imitation_is_the_weighted_likelihood():
    loss = imitation(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 0.5, 0.0]))
    assert float(loss.total) == pytest.approx(2.0)
