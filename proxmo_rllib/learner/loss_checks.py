"""Whether an objective and a correction can be used, found out on a few made-up tokens before long work starts."""

from __future__ import annotations

from typing import Any

import torch

from proxmo_rllib.learner.losses import LossTokens, PolicyLoss, Surrogate, TokenWeights
from proxmo_rllib.registry import Choice


def check_objective(choice: Choice[Any]) -> None:
    """Runs an objective once.

    Raises:
        ValueError: it returns something other than one finite, differentiable loss a token.
    """
    tokens = _tokens()
    surrogate = choice(tokens)
    name = f"objective {choice.name!r}"
    if not isinstance(surrogate, Surrogate):
        raise ValueError(f"{name}: returned {type(surrogate).__name__}; return Surrogate(losses, parts).")
    _check_shape(f"{name}: losses", surrogate.losses, tokens)
    if not surrogate.losses.requires_grad:
        raise ValueError(f"{name}: its losses have no gradient; compute them from tokens.logprobs.")
    for part, values in surrogate.parts.items():
        _check_shape(f"{name}: part {part!r}", values, tokens)
    PolicyLoss(choice)(tokens).total.backward()  # type: ignore[no-untyped-call]


def check_correction(choice: Choice[Any]) -> None:
    """Runs a correction once.

    Raises:
        ValueError: it returns something other than one finite weight of at least 0 a token.
    """
    tokens = _tokens()
    corrected = choice(tokens)
    name = f"correction {choice.name!r}"
    if not isinstance(corrected, TokenWeights):
        raise ValueError(f"{name}: returned {type(corrected).__name__}; return TokenWeights(weights, truncated).")
    _check_shape(f"{name}: weights", corrected.weights, tokens)
    _check_shape(f"{name}: truncated", corrected.truncated, tokens)
    if bool((corrected.weights < 0).any()):
        raise ValueError(f"{name}: a weight is below 0; 0 leaves a token out.")


def _check_shape(name: str, values: Any, tokens: LossTokens) -> None:
    expected = tuple(tokens.logprobs.shape)
    if not isinstance(values, torch.Tensor) or tuple(values.shape) != expected:
        found = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(f"{name} are {found}; return one number a token, a tensor of shape {expected}.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} are not all finite; they are one finite number a token.")


def _tokens() -> LossTokens:
    """Two turns, with ratios on both sides of 1 and advantages of both signs."""
    logprobs = torch.tensor([-1.0, -2.0, -0.5, -3.0, -0.1], requires_grad=True)
    return LossTokens(
        logprobs=logprobs,
        old_logprobs=torch.tensor([-1.1, -1.5, -0.5, -3.2, -0.4]),
        behaviour_logprobs=torch.tensor([-1.0, -1.6, -0.7, -3.0, -0.5]),
        advantages=torch.tensor([1.0, 1.0, -0.5, -0.5, -0.5]),
        entropy=torch.tensor([1.0, 0.5, 0.7, 1.2, 0.2], requires_grad=True),
        weights=torch.ones(5),
        turn=torch.tensor([0, 0, 1, 1, 1]),
    )
