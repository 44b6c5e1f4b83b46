"""Corrections of the mismatch between engine and learner: one weight a token, by which its loss is multiplied.

Engine and learner hold the same weights and still have different distributions: other kernels, bfloat16, a quantised
cache. `k = old / behaviour` is the learner's probability of a token, before the iteration's first step, by the
engine's. Multiplying by k makes the gradient that of samples of the learner's own (importance sampling), at the price
of variance; each correction bounds it in another way. The unit of what is said of sequences is the turn, as in `gspo`.

None of them changes what the loss is divided by: a token that is left out counts as one without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from proxmo_rllib.learner.losses import Correction, LossTokens, TokenWeights
from proxmo_rllib.registry import Option, Registry, number

_Correction = TypeVar("_Correction", bound=Correction)

OPTIONS: Mapping[str, Option] = {
    "cap": Option("a largest weight, at least 1", number(1.0)),
    "low": Option("a smallest ratio, from 0 to 1", number(0.0, 1.0)),
    "high": Option("a largest ratio, at least 1", number(1.0)),
}
CORRECTIONS: Registry[Correction] = Registry("correction", "@register_correction(name)", OPTIONS)


def register_correction(name: str) -> Callable[[_Correction], _Correction]:
    """Makes a correction known by a name, from anywhere; its keyword arguments become its options.

    It takes `LossTokens` and returns `TokenWeights`.

    Raises:
        ValueError: another function has this name already, or an option has no default.
    """
    register: Callable[[_Correction], _Correction] = CORRECTIONS.register(name)  # type: ignore[assignment]
    return register


@register_correction("none")
def none(tokens: LossTokens) -> TokenWeights:
    """Every token has the weight 1: biased by the mismatch."""
    ones = torch.ones_like(tokens.old_logprobs)
    return TokenWeights(ones, torch.zeros_like(ones, dtype=torch.bool))


@register_correction("token_tis")
@torch.no_grad()
def token_tis(tokens: LossTokens, *, cap: float = 2.0) -> TokenWeights:
    """`min(k, cap)`: truncated importance sampling (Ionides 2008; for engines Yao et al. 2025).

    Corrects the distribution of a token, not that of the tokens before it; biased where it truncates.

    Args:
        tokens: the tokens.
        cap: the largest weight.
    """
    return _truncated(_log_ratio(tokens).exp(), cap)


@register_correction("sequence_tis")
@torch.no_grad()
def sequence_tis(tokens: LossTokens, *, cap: float = 2.0) -> TokenWeights:
    """`min(product of k over the turn, cap)` for all tokens of the turn.

    Corrects the distribution of whole responses; its variance grows with their length.

    Args:
        tokens: the tokens.
        cap: the largest weight.
    """
    return _truncated(tokens.turn_sum(_log_ratio(tokens)).exp(), cap)


@register_correction("icepop")
@torch.no_grad()
def icepop(tokens: LossTokens, *, low: float = 0.5, high: float = 5.0) -> TokenWeights:
    """`k` within the band from low to high, 0 outside of it (IcePop; Ling team 2025, arXiv:2510.18855).

    Truncation keeps a token whose probability is wrong by orders of magnitude, with the largest weight of all; the band
    leaves it out, and one that the engine found far too likely too.

    Args:
        tokens: the tokens.
        low: smallest ratio.
        high: largest ratio.
    """
    ratio = _log_ratio(tokens).exp()
    return _weights(torch.where((ratio >= low) & (ratio <= high), ratio, 0.0))


@register_correction("geometric_mask")
@torch.no_grad()
def geometric_mask(tokens: LossTokens, *, low: float = 0.8, high: float = 1.25) -> TokenWeights:
    """1 for the tokens of a turn whose geometric mean of k is within the band, 0 for those of the others.

    Leaves out whole turns whose mismatch a token is large on average, whatever their length (Liu et al. 2025, "When
    speed kills stability"); corrects nothing within the band.

    Args:
        tokens: the tokens.
        low: smallest geometric mean.
        high: largest geometric mean.
    """
    mean = tokens.turn_mean(_log_ratio(tokens)).exp()
    return _weights(((mean >= low) & (mean <= high)).to(mean.dtype))


def _log_ratio(tokens: LossTokens) -> torch.Tensor:
    return tokens.old_logprobs - tokens.behaviour_logprobs


def _truncated(ratio: torch.Tensor, cap: float) -> TokenWeights:
    return TokenWeights(ratio.clamp(max=cap), ratio > cap)


def _weights(weights: torch.Tensor) -> TokenWeights:
    return TokenWeights(weights, torch.zeros_like(weights, dtype=torch.bool))
