"""Which attention a model can be computed with: PyTorch's SDPA where it gives what the model asks for, else eager.

Transformers takes SDPA for every class that allows it, also where SDPA leaves something out that the model's config
asks for: a cap on the attention scores (Gemma 2). Eager attention leaves nothing out, and costs memory that grows with
the square of the sequence.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Settings of a model's config that SDPA has no argument for.
_BEYOND_SDPA = ("attn_logit_softcapping",)
_PROBE_SHAPE = (2, 48)
# Of a logprob, absolute, in float32: rounding explains a hundredth of it.
_TOLERANCE = 1e-3


def choose_attention(lm: Any) -> None:
    """Puts a model on eager attention if SDPA does not compute the same.

    Args:
        lm: a causal LM of transformers in float32, as `from_pretrained` made it.
    """
    if lm.config._attn_implementation != "sdpa":
        return  # the class takes no SDPA
    reason = asks_for_more(lm) or _differs(lm)
    lm.set_attn_implementation("eager" if reason else "sdpa")
    if reason:
        logger.info("%s is computed with eager attention: %s.", type(lm).__name__, reason)


def asks_for_more(lm: Any) -> str | None:
    """What a model asks for that SDPA leaves out, by its config; None if nothing."""
    config = lm.config.get_text_config()
    for name in _BEYOND_SDPA:
        if getattr(config, name, None) is not None:
            return f"SDPA knows no {name}={getattr(config, name)}"
    return None


@torch.no_grad()
def _differs(lm: Any) -> str | None:
    """Compares the two on random tokens: what else SDPA leaves out need not stand in a config."""
    vocab_size = lm.config.get_text_config().vocab_size
    ids = torch.randint(vocab_size, _PROBE_SHAPE, generator=torch.Generator().manual_seed(0))
    ids = ids.to(next(lm.parameters()).device)
    fast = lm(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    lm.set_attn_implementation("eager")
    exact = lm(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    error = float((fast - exact).abs().max())
    return None if error <= _TOLERANCE else f"with SDPA its logprobs differ by {error:.3g}"
