"""Whether an engine computes what the learner computes, within what rounding explains.

Two checks. After every weight transfer the logprobs of a fixed prompt are compared; before the first optimizer step of
a run, those of the tokens that the engine sampled for it: at that step the two have the same weights, so that their KL
divergence is rounding and nothing else. A scale that one of them forgets, a cap, other weights: all of it shows there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: In float32 a logprob may differ by this much.
_FLOAT32_MAXIMUM = 1e-4
# In bfloat16 the differences may be this many times what rounding does to the learner's own logprobs, and a little: the
# engine also rounds where the learner's autocast does not. Measured over families of models: 1.0 to 2.1 times.
# What rounding does grows in training: a model that was loaded in bfloat16 lies on its grid, and small steps of the
# float32 weights leave the grid long before the rounded ones follow (SmolLM2-135M: from 0.3 to 1.1 in 19 iterations).
_ROUNDINGS = 3.0
_BFLOAT16_FLOOR = 2e-3
# A single token may be far off where rounding sends it to another expert.
_BFLOAT16_MAXIMUM = 1.0


class WeightTransferError(RuntimeError):
    """An engine does not compute what the learner computes."""


class EngineMismatchError(RuntimeError):
    """The engine sampled from another distribution than the learner has for the same weights."""


@dataclass(frozen=True, slots=True)
class ProbeScores:
    """The learner's logprobs of a fixed prompt.

    Attributes:
        trained: by the arithmetic of the loss, float32 [tokens].
        exact: in float32 throughout, float32 [tokens].
    """

    trained: np.ndarray
    exact: np.ndarray


def check_transfer(scores: np.ndarray, probe: ProbeScores, dtype: str, tolerance: float | None, version: int) -> float:
    """Compares every engine's logprobs of the fixed prompt with the learner's.

    Args:
        scores: of the engines, float32 [engines, tokens].
        probe: of the learner.
        dtype: of the engines' weights and the learner's arithmetic.
        tolerance: largest difference of a logprob that is allowed; None for what rounding explains.
        version: of the weights.

    Returns:
        The largest difference.

    Raises:
        WeightTransferError: it is larger than allowed, in some engine.
    """
    differences = np.abs(scores - probe.exact)
    largest = float(differences.max())
    bounds = {"maximum": tolerance}
    if tolerance is None and dtype == "float32":
        bounds = {"maximum": _FLOAT32_MAXIMUM}
    elif tolerance is None:
        rounding = np.abs(probe.trained - probe.exact)
        bounds = {
            "mean": _ROUNDINGS * float(rounding.mean()) + _BFLOAT16_FLOOR,
            "maximum": max(_BFLOAT16_MAXIMUM, _ROUNDINGS * float(rounding.max())),
        }
    found = {"maximum": largest, "mean": float(differences.mean(axis=1).max())}
    for name, bound in bounds.items():
        if bound is not None and not found[name] <= bound:
            raise WeightTransferError(
                f"After the transfer of version {version} the logprobs of a fixed prompt differ between an engine and "
                f"the learner by {found[name]:.3g} ({name} over {differences.shape[1]} tokens); allowed are "
                f"{bound:.3g} for dtype={dtype!r}. The engine does not hold these weights, or computes the model "
                "differently; if you know why, set .inference(weight_check_tolerance=...)."
            )
    return largest


def check_on_policy(kl: float, bound: float, engine: str, learner: str) -> None:
    """Judges the first on-policy step.

    Args:
        kl: divergence of the learner from the engine, nats a token.
        bound: what is allowed.
        engine: that sampled, in words.
        learner: that computes the loss, in words.

    Raises:
        EngineMismatchError: it is too large.
    """
    if kl > bound:
        raise EngineMismatchError(
            f"At the first on-policy step the KL divergence between engine ({engine}) and learner ({learner}) is "
            f"{kl:.3g} nats a token; with the same weights rounding explains {bound:.3g}. One of them computes the "
            "model differently. Try the other engine or dtype='float32' to see which; if you know why, set "
            ".inference(max_kl_to_engine=...)."
        )
