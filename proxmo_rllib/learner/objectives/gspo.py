"""GSPO: one ratio for a whole response, clipped as a whole (Zheng et al. 2025, arXiv:2507.18071, eq. 5 and 13)."""

from __future__ import annotations

import torch

from proxmo_rllib.learner.losses import LossTokens, Surrogate
from proxmo_rllib.learner.objectives.registry import register_objective


@register_objective("gspo")
def gspo(tokens: LossTokens, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Surrogate:
    """`-min(s A, clip(s, 1 - low, 1 + high) A)` with `s = exp(mean over the response of log(policy / old))`.

    The response is one turn. The paper's sequence is the one answer to a prompt; an episode of many turns is many of
    them. Were it all that stands in one token sequence, an episode would have one ratio where its context is
    append-only and many where it is a window, and the gradient would depend on the layout.

    In the token-wise form of eq. 13 (`s` is a number, and each token's own logprob has the gradient): the same value
    and gradient, since the tokens of a turn share advantage and weight, and a correction of single tokens stays with
    them.

    The bounds are the paper's: a mean over many tokens is near 1, so they are far smaller than those of a token's
    ratio. For short turns, or in bfloat16 with `old_logprobs="engine"`, rounding alone goes beyond them: make them
    wider.

    Args:
        tokens: the tokens.
        clip_low: the ratio is clipped from below at 1 - clip_low.
        clip_high: and from above at 1 + clip_high.
    """
    with torch.no_grad():
        ratio = tokens.turn_mean(tokens.logprobs - tokens.old_logprobs).exp()
    ratio = ratio * (tokens.logprobs - tokens.logprobs.detach()).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    losses = -torch.minimum(ratio * tokens.advantages, clipped * tokens.advantages)
    low, high = (ratio < clipped) & (tokens.advantages < 0), (ratio > clipped) & (tokens.advantages > 0)
    return Surrogate(losses, {"clip_fraction": low | high, "clip_fraction_low": low, "clip_fraction_high": high})
