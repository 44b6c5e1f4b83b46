"""PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7), clipped low and high separately."""

from __future__ import annotations

import torch

from proxmo_rllib.learner.losses import LossTokens, Surrogate
from proxmo_rllib.learner.objectives.registry import register_objective


@register_objective("ppo")
def ppo(
    tokens: LossTokens, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> Surrogate:
    """`-min(r A, clip(r, 1 - low, 1 + high) A)` with `r = policy / old`, the ratio of a token.

    A token has no gradient once its ratio has moved beyond the bound in the direction that its advantage asks for; one
    that has moved the other way is pulled back. A `clip_high` above `clip_low` leaves rare tokens more room to become
    likely (DAPO's clip-higher, arXiv:2503.14476, section 3.1).

    Dual clip (Ye et al. 2020, arXiv:1912.09729, eq. 5): for A < 0 the loss is at most `c |A|`; without it a token whose
    ratio has exploded has a gradient as large as the ratio.

    Args:
        tokens: the tokens.
        clip_low: the ratio is clipped from below at 1 - clip_low.
        clip_high: and from above at 1 + clip_high.
        dual_clip: c, above 1; None for no such bound.
    """
    ratio = (tokens.logprobs - tokens.old_logprobs).exp()
    advantages = tokens.advantages
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    low, high = (ratio < clipped) & (advantages < 0), (ratio > clipped) & (advantages > 0)
    parts = {"clip_fraction": low | high, "clip_fraction_low": low, "clip_fraction_high": high}
    if dual_clip is not None:
        bound = -dual_clip * advantages
        dual = (advantages < 0) & (losses > bound)
        losses = torch.where(dual, bound, losses)
        parts["clip_fraction_dual"] = dual
        parts["clip_fraction"] = low | high | dual
    return Surrogate(losses, parts)
