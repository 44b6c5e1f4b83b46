"""The losses, against numbers worked out by hand."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch

from proxmo_rllib.learner.corrections import CORRECTIONS
from proxmo_rllib.learner.kl import KL_ESTIMATORS
from proxmo_rllib.learner.losses import LossTokens, PolicyLoss, Surrogate, imitation, log_mismatch
from proxmo_rllib.learner.objectives import OBJECTIVES, ppo


def tokens_of(
    ratios: list[float],
    advantages: list[float],
    turn: list[int] | None = None,
    *,
    mismatch: list[float] | None = None,
    reference: list[float] | None = None,
    weights: list[float] | None = None,
) -> LossTokens:
    """Tokens whose ratio to the old policy, and that of the old policy to the engine, are given."""
    count = len(ratios)
    old = torch.full((count,), -2.0)
    logprobs = (old + torch.tensor(ratios).log()).requires_grad_()
    return LossTokens(
        logprobs=logprobs,
        old_logprobs=old,
        behaviour_logprobs=old - torch.tensor(mismatch or [1.0] * count).log(),
        advantages=torch.tensor(advantages),
        entropy=torch.full((count,), 1.5),
        weights=torch.tensor(weights or [1.0] * count),
        turn=torch.tensor(turn or list(range(count))),
        reference_logprobs=None if reference is None else logprobs.detach() - torch.tensor(reference),
    )


def losses_and_gradients(objective: Any, tokens: LossTokens, **options: Any) -> tuple[list[float], list[float]]:
    losses = objective(tokens, **options).losses
    (gradient,) = torch.autograd.grad(losses.sum(), tokens.logprobs)
    return losses.tolist(), gradient.tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, None),
        (1.25, 2.0, -2.5, None),
        (1.5, 2.0, -2.6, "high"),  # no reward for going beyond 1 + 0.3
        (0.5, 2.0, -1.0, None),  # too rare now, and good: pulled back
        (0.5, -2.0, 1.6, "low"),  # no reward for going beyond 1 - 0.2
        (1.5, -2.0, 3.0, None),  # too frequent now, and bad: pulled back
        (5.0, -2.0, 6.0, "dual"),  # the bound of 3 |A|
        (0.9, -2.0, 1.8, None),
    ],
)
def test_ppo_is_clipped_on_the_side_that_gains(ratio: float, advantage: float, loss: float, clipped: str | None):
    tokens = tokens_of([ratio], [advantage])
    options = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}
    assert losses_and_gradients(ppo, tokens, **options) == (
        pytest.approx([loss], rel=1e-5),
        pytest.approx([0.0 if clipped else -ratio * advantage], rel=1e-5),
    )
    parts = ppo(tokens, **options).parts
    assert {name: bool(parts[f"clip_fraction_{name}"]) for name in ("low", "high", "dual")} == {
        name: name == clipped for name in ("low", "high", "dual")
    }
    assert bool(parts["clip_fraction"]) == (clipped is not None)


def test_without_a_dual_clip_a_bad_token_is_pulled_back_as_hard_as_it_is_far_off():
    assert losses_and_gradients(ppo, tokens_of([5.0], [-2.0])) == (pytest.approx([10.0]), pytest.approx([10.0]))


def test_gspo_has_one_ratio_a_turn():
    """Turn 0: ratios 2 and 0.5, geometric mean 1. Turn 1: 1.21 and 1, mean 1.1. Turn 2: 0.64, clipped at 0.9."""
    tokens = tokens_of([2.0, 0.5, 1.21, 1.0, 0.64], [3.0, 3.0, 2.0, 2.0, -1.0], [0, 0, 1, 1, 2])
    losses, gradients = losses_and_gradients(OBJECTIVES["gspo"], tokens, clip_low=0.1, clip_high=0.2)
    assert losses == pytest.approx([-3.0, -3.0, -2.2, -2.2, 0.9], rel=1e-5)
    # d/dlogprob of (2 tokens * -s A), with s the mean's exponential: -s A each.
    assert gradients == pytest.approx([-3.0, -3.0, -2.2, -2.2, 0.0], rel=1e-5)
    parts = OBJECTIVES["gspo"](tokens, clip_low=0.1, clip_high=0.05).parts
    assert parts["clip_fraction_low"].tolist() == [False] * 4 + [True]
    assert parts["clip_fraction_high"].tolist() == [False, False, True, True, False]


def test_the_order_of_tokens_and_the_numbers_of_turns_do_not_matter_to_gspo():
    ratios, advantages, turn = [2.0, 0.5, 1.21, 1.0], [3.0, 3.0, 2.0, 2.0], [0, 0, 1, 1]
    order = [2, 0, 3, 1]
    shuffled = tokens_of([ratios[i] for i in order], [advantages[i] for i in order], [1 - turn[i] for i in order])
    plain, _ = losses_and_gradients(OBJECTIVES["gspo"], tokens_of(ratios, advantages, turn))
    assert losses_and_gradients(OBJECTIVES["gspo"], shuffled)[0] == pytest.approx([plain[i] for i in order])


def test_cispo_clips_the_weight_and_keeps_every_gradient():
    tokens = tokens_of([0.5, 1.0, 9.0, 9.0], [1.0, 2.0, 2.0, -2.0])
    losses, gradients = losses_and_gradients(OBJECTIVES["cispo"], tokens)
    assert gradients == pytest.approx([-0.5, -2.0, -10.0, 10.0], rel=1e-5)  # at most 1 + 4
    assert losses == pytest.approx([g * lp for g, lp in zip(gradients, tokens.logprobs.tolist(), strict=True)])
    parts = OBJECTIVES["cispo"](tokens, clip_low=0.4).parts
    assert parts["clip_fraction_low"].tolist() == [True, False, False, False]
    assert parts["clip_fraction_high"].tolist() == [False, False, True, True]


def test_reinforce_knows_no_ratio():
    tokens = tokens_of([0.5, 3.0], [1.0, -2.0])
    losses, gradients = losses_and_gradients(OBJECTIVES["reinforce"], tokens)
    assert gradients == [-1.0, 2.0]
    assert losses == pytest.approx((-tokens.advantages * tokens.logprobs).tolist())


# k of five tokens in two turns. Turn 0: product 2, geometric mean 1.414. Turn 1: product 0.96, mean 0.986.
MISMATCH, TURN = [4.0, 0.5, 0.4, 6.0, 0.4], [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "options", "weights", "truncated"),
    [
        ("none", {}, [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
        ("token_tis", {}, [2, 0.5, 0.4, 2, 0.4], [1, 0, 0, 1, 0]),
        ("token_tis", {"cap": 5.0}, [4, 0.5, 0.4, 5, 0.4], [0, 0, 0, 1, 0]),
        ("sequence_tis", {"cap": 1.5}, [1.5, 1.5, 0.96, 0.96, 0.96], [1, 1, 0, 0, 0]),
        ("icepop", {"low": 0.45}, [4, 0.5, 0, 0, 0], [0, 0, 0, 0, 0]),
        ("icepop", {"low": 0.1, "high": 10.0}, MISMATCH, [0, 0, 0, 0, 0]),
        ("geometric_mask", {}, [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]),
        ("geometric_mask", {"low": 0.99, "high": 2.0}, [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_a_correction_weighs_tokens(name: str, options: dict[str, float], weights: list[float], truncated: list[int]):
    corrected = CORRECTIONS[name](tokens_of([1.0] * 5, [1.0] * 5, TURN, mismatch=MISMATCH), **options)
    assert corrected.weights.tolist() == pytest.approx(weights, rel=1e-5)
    assert corrected.truncated.int().tolist() == truncated
    assert not corrected.weights.requires_grad


def test_a_correction_weighs_the_objective_alone_and_is_logged_before_and_after():
    tokens = tokens_of([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], TURN, mismatch=MISMATCH, weights=[1, 1, 1, 2, 1])
    icepop = OBJECTIVES.choose("objective", "ppo"), CORRECTIONS.choose("correction", {"name": "icepop", "low": 0.45})
    loss = PolicyLoss(*icepop, entropy_coef=0.1)(tokens)
    log_mismatch(loss, tokens, tokens.old_logprobs)
    assert float(loss.total.detach()) == pytest.approx(-(4 * 1 + 0.5 * 2) - 0.1 * 6 * 1.5, rel=1e-5)
    mean = {name: float(total) / float(count) for name, (total, count) in loss.means.items()}
    k3 = {k: k - 1 - math.log(k) for k in MISMATCH}
    assert mean["mismatch/kl"] == pytest.approx((k3[4.0] + k3[0.5] + 2 * k3[6.0] + 2 * k3[0.4]) / 6, rel=1e-4)
    assert mean["mismatch/kl_corrected"] == pytest.approx((k3[4.0] + k3[0.5]) / 2, rel=1e-4)
    assert mean["mismatch/ratio_mean"] == pytest.approx((4 + 0.5 + 0.8 + 12) / 6, rel=1e-4)
    assert mean["mismatch/weight_mean"] == pytest.approx(4.5 / 6, rel=1e-4)
    assert mean["mismatch/masked"] == pytest.approx(4 / 6)
    assert mean["mismatch/truncated"] == 0.0
    assert float(loss.maxima["mismatch/ratio_max"]) == pytest.approx(6.0, rel=1e-4)
    assert float(loss.maxima["mismatch/weight_max"]) == pytest.approx(4.0, rel=1e-4)


def test_a_token_that_the_engine_called_impossible_is_left_out_with_a_finite_loss():
    tokens = tokens_of([1.0, 1.0], [1.0, 1.0], mismatch=[1.0, math.inf])
    loss = PolicyLoss(ppo, CORRECTIONS["icepop"])(tokens)
    assert float(loss.total.detach()) == pytest.approx(-1.0)
    total, count = loss.means["mismatch/kl_corrected"]
    assert (float(total), float(count)) == (0.0, 1.0)


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("correction", list(CORRECTIONS))
def test_no_token_is_no_loss(name: str, correction: str):
    """A micro-batch may hold none that counts."""
    empty = tokens_of([], [])
    empty = LossTokens(*(t.long() if t.dtype == torch.bool else t for t in vars_of(empty)[:6]), torch.zeros(0).long())
    assert float(PolicyLoss(OBJECTIVES[name], CORRECTIONS[correction])(empty).total.detach()) == 0.0


def vars_of(tokens: LossTokens) -> list[Any]:
    return [getattr(tokens, name) for name in LossTokens.__slots__]


def test_entropy_is_a_bonus():
    assert float(PolicyLoss(ppo, entropy_coef=0.5)(tokens_of([1.0], [0.0])).total.detach()) == pytest.approx(-0.75)


@pytest.mark.parametrize("difference", [0.0, 0.3, -0.7])
@pytest.mark.parametrize("name", list(KL_ESTIMATORS))
def test_the_value_of_a_kl_estimate(name: str, difference: float):
    tokens = tokens_of([1.0, 1.0], [0.0, 0.0], reference=[difference, difference])
    loss = PolicyLoss(ppo, kl_coef=0.5, kl_estimator=name)(tokens)
    each = {"k1": difference, "k2": difference**2 / 2, "k3": math.exp(-difference) - 1 + difference}[name]
    assert float(loss.means["kl_to_reference"][0]) == pytest.approx(2 * each, abs=1e-6)
    assert float(loss.total.detach()) == pytest.approx(0.5 * 2 * each, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "off_policy", "direction"),
    [("k1", False, "to"), ("k1", True, "to"), ("k2", False, "to"), ("k3", False, "from"), ("k2", True, None)],
)
def test_the_expected_gradient_of_a_kl_estimate(name: str, off_policy: bool, direction: str | None):
    """Over every token that could have been sampled, by the probability that it had: exact, nothing sampled."""
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    old = torch.randn(5, dtype=torch.float64).log_softmax(-1) if off_policy else policy.detach()
    nothing = torch.zeros(5, dtype=torch.float64)
    tokens = LossTokens(policy, old, old, nothing, nothing, old.exp(), torch.arange(5), reference)
    (gradient,) = torch.autograd.grad((old.exp() * KL_ESTIMATORS[name](tokens)).sum(), logits, retain_graph=True)
    to = (policy.exp() * (policy - reference)).sum()
    back = (reference.exp() * (reference - policy)).sum()
    exact = {way: torch.autograd.grad(kl, logits, retain_graph=True)[0] for way, kl in (("to", to), ("from", back))}
    agrees = [way for way, expected in exact.items() if torch.allclose(gradient, expected, atol=1e-12)]
    assert agrees == ([] if direction is None else [direction])


def test_a_penalty_needs_a_reference():
    with pytest.raises(ValueError, match="kl_coef"):
        PolicyLoss(ppo, kl_coef=0.1)(tokens_of([1.0], [1.0]))


def test_a_weight_scales_a_token_in_every_term():
    def loss(weights: list[float]) -> float:
        tokens = tokens_of([0.9, 1.3], [1.0, -2.0], mismatch=[0.8, 1.1], reference=[0.1, 0.3], weights=weights)
        return float(PolicyLoss(ppo, CORRECTIONS["token_tis"], 0.1, "k3", 0.1)(tokens).total.detach())

    only_first, only_second = loss([1.0, 0.0]), loss([0.0, 1.0])
    assert loss([0.25, 3.0]) == pytest.approx(0.25 * only_first + 3.0 * only_second, rel=1e-5)


@pytest.mark.parametrize("function", [*OBJECTIVES.values(), *CORRECTIONS.values()])
def test_what_a_config_chooses_travels_between_processes(function: Any):
    assert pickle.loads(pickle.dumps(function)) is function


def test_what_an_objective_logs_is_a_mean_over_tokens():
    def own(tokens: LossTokens) -> Surrogate:
        return Surrogate(-tokens.advantages * tokens.logprobs, {"mine": tokens.advantages})

    loss = PolicyLoss(own)(tokens_of([1.0, 1.0], [1.0, 4.0], weights=[1.0, 2.0]))
    assert tuple(map(float, loss.means["mine"])) == (9.0, 3.0)


def test_imitation_is_the_weighted_likelihood():
    loss = imitation(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 0.5, 0.0]))
    assert float(loss.total.detach()) == pytest.approx(2.0)
