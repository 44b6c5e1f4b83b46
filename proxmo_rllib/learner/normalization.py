"""What a token's loss weighs, and what the sum over an optimizer step is divided by.

| loss_weighting | weight of a token | the sum is divided by |
|---|---|---|
| token | 1 | sampled tokens of the step (DAPO, arXiv:2503.14476, eq. 8) |
| sequence | 1 / tokens of its turn | turns of the step (GRPO and GSPO, where a response is a whole sequence) |
| episode | 1 / tokens of its episode | episodes of the step |
| dr_grpo | 1 | episodes x max_turns x max_response_tokens (Dr. GRPO, arXiv:2503.20783, section 3.2) |

All counts are of all micro-batches and learners together. The first three are the sum of the weights; the last depends
on no length at all: the mean over a step's tokens would scale the gradient of long answers down as they grow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOSS_WEIGHTINGS = ("token", "sequence", "episode", "dr_grpo")


def token_weights(weighting: str, turn_lengths: np.ndarray) -> np.ndarray:
    """What a token of each turn of an episode weighs.

    Args:
        weighting: one of `LOSS_WEIGHTINGS`.
        turn_lengths: sampled tokens of each turn, int [turns].

    Returns:
        float64 [turns]
    """
    if weighting == "sequence":
        return 1.0 / np.maximum(1, turn_lengths)
    share = 1.0 / max(1, int(turn_lengths.sum())) if weighting == "episode" else 1.0
    return np.full(len(turn_lengths), share)


@dataclass(frozen=True, slots=True)
class Normalization:
    """What the sum of a step is divided by.

    Attributes:
        weighting: one of `LOSS_WEIGHTINGS`.
        tokens_per_episode: that an episode can have at most, for "dr_grpo".
    """

    weighting: str = "token"
    tokens_per_episode: int = 1

    def denominator(self, weight: float, episodes: float) -> float:
        """The number.

        Args:
            weight: sum of the weights of the step's tokens, over all learners.
            episodes: of a step, over all learners: those of the iteration by the steps of an epoch. A step has a share
                of the iteration's sequences, and not whole episodes where an episode is several of them.
        """
        return episodes * self.tokens_per_episode if self.weighting == "dr_grpo" else weight
