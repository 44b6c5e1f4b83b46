"""Estimates of the KL divergence to the reference policy, as a penalty of the loss (Schulman 2020, "Approximating KL
divergence"): value and gradient of each.

For a token that the old policy sampled, with P the policy, Q the reference, `d = log(P / Q)` and `r = P / old`. What a
penalty does is its gradient, and the gradient of a good estimate need not be a good estimate of the gradient (Tang and
Munos 2025, arXiv:2506.09477), so both are said:

| estimator | value | gradient | in expectation that of |
|---|---|---|---|
| k1 | d: unbiased, may be negative | r d grad(log P) | KL(P, Q), at every optimizer step |
| k2 | d^2 / 2: biased, small variance | d grad(log P) | KL(P, Q), at the first optimizer step |
| k3 | exp(-d) - 1 + d: unbiased, never negative | (1 - exp(-d)) grad(log P) | KL(Q, P), at the first optimizer step |

At the first step the policy is still the one that sampled; at later ones k2 and k3 are biased by how far it has moved.
So k3, GRPO's, estimates KL(P, Q) and lowers KL(Q, P): both are zero at the reference, and alike near it.

k1 differentiated as it stands would have the gradient of log policy, whose expectation is zero: it would penalise
nothing. So its gradient is that of the divergence itself, by the score function. All are of the distributions of the
next token at the contexts that were met; that a token leads to other contexts, with another divergence, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from proxmo_rllib.learner.losses import LossTokens


def k1(tokens: LossTokens) -> torch.Tensor:
    """`log(policy / reference)`, with the gradient of the divergence by the score function."""
    difference = _log_ratio(tokens).detach()
    ratio = (tokens.logprobs - tokens.old_logprobs).detach().exp()
    score = tokens.logprobs - tokens.logprobs.detach()  # zero, with the gradient of the logprob
    return difference + ratio * difference * score


def k2(tokens: LossTokens) -> torch.Tensor:
    """`log(policy / reference)^2 / 2`."""
    return 0.5 * _log_ratio(tokens).square()


def k3(tokens: LossTokens) -> torch.Tensor:
    """`reference / policy - 1 + log(policy / reference)`: what GRPO has (arXiv:2402.03300, eq. 4)."""
    difference = _log_ratio(tokens)
    return (-difference).exp() - 1.0 + difference


def _log_ratio(tokens: LossTokens) -> torch.Tensor:
    assert tokens.reference_logprobs is not None
    return tokens.logprobs - tokens.reference_logprobs


#: By name; float32 [tokens] each, differentiable.
KL_ESTIMATORS: dict[str, Callable[[LossTokens], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
