"""REINFORCE (Williams 1992): the likelihood of a token, weighted by its advantage."""

from __future__ import annotations

from proxmo_rllib.learner.losses import LossTokens, Surrogate
from proxmo_rllib.learner.objectives.registry import register_objective


@register_objective("reinforce")
def reinforce(tokens: LossTokens) -> Surrogate:
    """`-A log policy`.

    Assumes that the policy sampled the tokens: right for the first optimizer step of an iteration, and biased at those
    after it, which nothing bounds. With `num_minibatches=1` and `num_epochs=1` its gradient is PPO's.

    Args:
        tokens: the tokens.
    """
    return Surrogate(-tokens.advantages * tokens.logprobs)
