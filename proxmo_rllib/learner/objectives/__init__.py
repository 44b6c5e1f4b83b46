"""Objectives by name: what one token's loss is, given its logprob and its advantage.

A short module each, with formula, paper and what it assumes. Of the user's own:

    @register_objective("squared")
    def squared(tokens, *, scale=1.0):
        return Surrogate(-scale * tokens.advantages * (tokens.logprobs - tokens.old_logprobs).exp())
"""

from proxmo_rllib.learner.losses import LossTokens, Objective, Surrogate
from proxmo_rllib.learner.objectives.cispo import cispo
from proxmo_rllib.learner.objectives.gspo import gspo
from proxmo_rllib.learner.objectives.ppo import ppo
from proxmo_rllib.learner.objectives.registry import OBJECTIVES, register_objective
from proxmo_rllib.learner.objectives.reinforce import reinforce

__all__ = [
    "OBJECTIVES",
    "LossTokens",
    "Objective",
    "Surrogate",
    "cispo",
    "gspo",
    "ppo",
    "register_objective",
    "reinforce",
]
