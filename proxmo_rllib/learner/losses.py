"""Token losses: the clipped surrogate with its extras, and imitation. Weighted sums; the learner normalises."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Sums over the loss tokens of a micro-batch."""

    total: torch.Tensor  # scalar, differentiable
    parts: dict[str, torch.Tensor]  # scalars, detached: what to log, each divided by the sum of the weights


def clipped_surrogate(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    entropy: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    entropy_coef: float,
    kl_coef: float = 0.0,
    reference_logprobs: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
) -> TokenLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7) with a k3 KL penalty and an entropy bonus.

    Args:
        logprobs: of the policy being optimised, float32 [tokens], differentiable.
        old_logprobs: of the policy before the iteration's first step, float32 [tokens].
        advantages: float32 [tokens].
        entropy: of the policy's distribution at each token, nats, float32 [tokens], differentiable.
        weights: of each token in every sum, float32 [tokens].
        clip_low: the ratio is clipped at 1 - clip_low.
        clip_high: and at 1 + clip_high.
        entropy_coef: weight of the bonus.
        kl_coef: weight of the penalty.
        reference_logprobs: of the reference policy, float32 [tokens]; needed if `kl_coef` > 0.
        importance: weight of each token that corrects for an engine whose distribution differs from the learner's,
            float32 [tokens].
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    if importance is not None:
        objective = objective * importance
    policy_loss = -(weights * objective).sum()
    total = policy_loss - entropy_coef * (weights * entropy).sum()
    with torch.no_grad():
        is_clipped = ((ratio - clipped).abs() > 0) & (ratio * advantages > clipped * advantages)
        parts = {
            "policy_loss": policy_loss.detach(),
            "entropy": (weights * entropy).sum(),
            "clip_fraction": (weights * is_clipped).sum(),
            "approximate_kl_to_old": (weights * (ratio - 1.0 - log_ratio)).sum(),
        }
    if kl_coef > 0:
        if reference_logprobs is None:
            raise ValueError("kl_coef > 0 needs the logprobs of the reference policy.")
        # k3 of Schulman's note on approximating KL: unbiased, never negative, low variance.
        to_reference = reference_logprobs - logprobs
        kl = (weights * (to_reference.exp() - 1.0 - to_reference)).sum()
        total = total + kl_coef * kl
        parts["kl_to_reference"] = kl.detach()
    return TokenLoss(total, parts)


def imitation(logprobs: torch.Tensor, weights: torch.Tensor) -> TokenLoss:
    """Weighted negative log-likelihood of the demonstrated tokens (behaviour cloning).

    Args:
        logprobs: float32 [tokens], differentiable.
        weights: float32 [tokens].
    """
    total = -(weights * logprobs).sum()
    return TokenLoss(total, {"imitation_loss": total.detach()})
