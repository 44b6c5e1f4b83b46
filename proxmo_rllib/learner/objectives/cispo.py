"""CISPO: the importance weight is clipped, no token is (MiniMax 2025, arXiv:2506.13585, eq. 4 and 5)."""

from __future__ import annotations

from proxmo_rllib.learner.losses import LossTokens, Surrogate
from proxmo_rllib.learner.objectives.registry import register_objective


@register_objective("cispo")
def cispo(tokens: LossTokens, *, clip_low: float = 1.0, clip_high: float = 4.0) -> Surrogate:
    """`-clip(r, 1 - low, 1 + high) A log policy` with `r = policy / old`, clipped, as a number without gradient.

    REINFORCE with a bounded importance weight. PPO drops a token once it has moved far enough, and the rare ones, which
    decide what a response becomes, move first; here every token keeps its gradient at every optimizer step. What bounds
    the step is the weight alone, so more optimizer steps on the same episodes may carry the policy further than PPO's.

    Args:
        tokens: the tokens.
        clip_low: the weight is clipped from below at 1 - clip_low; 1 clips nothing, as in the paper.
        clip_high: and from above at 1 + clip_high. The paper gives no number.
    """
    ratio = (tokens.logprobs - tokens.old_logprobs).detach().exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    low, high = ratio < clipped, ratio > clipped
    return Surrogate(
        -clipped * tokens.advantages * tokens.logprobs,
        {"clip_fraction": low | high, "clip_fraction_low": low, "clip_fraction_high": high},
    )
