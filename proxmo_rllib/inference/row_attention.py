"""Attention that gives a row the same bits in whatever company it is computed.

PyTorch's SDPA adds up the keys of a row in blocks that are laid over the whole padded batch, so that the last bits of a
row depend on how much padding stands before it: on which requests came along. Here each row is attended to alone,
without its padding. All else that a transformer does to a token is a matrix product, whose sums do not depend on the
number of tokens as long as it is a multiple of BLOCK (`missing`), or is done for each alone.

Registered with transformers (5.x) under the name ROW_BY_ROW.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROW_BY_ROW = "row_by_row"
# MKL has other kernels, which sum in another order, for a matrix product of few rows, and for the rows that are left
# over when it is divided among threads and blocks. Measured with 1 to 4 threads: on an AMD CPU multiples of four give a
# row the same bits; on an Intel one with AVX-512 products of 4, 8 and 12 rows are others than those of more, and
# multiples of sixteen are alike. With several threads Intel's MKL divides long sums too (of 1,536 products, at 64 rows
# and more).
BLOCK = 16

_padding: ContextVar[Sequence[int] | None] = ContextVar("padding", default=None)


def missing(number: int) -> int:
    """How many rows, or tokens of each, a batch lacks for the sums of its products to be made in the usual order."""
    return -number % BLOCK


@contextmanager
def padded_by(columns: Sequence[int] | None) -> Iterator[None]:
    """Says how many columns at the left of each row are padding, for the forward passes within; None for no padding."""
    token = _padding.set(columns)
    try:
        yield
    finally:
        _padding.reset(token)


def use_row_attention(lm: Any) -> bool:
    """Puts a model on this attention if SDPA would compute it. Returns whether it did."""
    if lm.config._attn_implementation != "sdpa":
        return False
    lm.set_attn_implementation(ROW_BY_ROW)
    # The last positions alone go into the head, and PyTorch multiplies what is cut out row by row, a few at a time.
    lm.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(),))
    return True


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' SDPA: query [rows, heads, new columns, head size] to [rows, new columns, heads, head size]."""
    rows, heads, new, _ = query.shape
    cached = key.shape[2] - new
    out = query.new_zeros((rows, new, heads, value.shape[-1]))
    for row, first in enumerate(_padding.get() or [0] * rows):
        own = slice(row, row + 1)
        begin = max(0, first - cached)  # of its queries
        out[own, begin:], _ = sdpa_attention_forward(
            module,
            query[own, :, begin:],
            key[own, :, first:],
            value[own, :, first:],
            attention_mask[own if len(attention_mask) > 1 else slice(None), :, begin:, first:],
            **kwargs,
        )
    return out, None


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """As SDPA's, but always there: whether a mask can be left out depends on the other rows."""
    return sdpa_mask(*args, **kwargs | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(ROW_BY_ROW, _attend)
AttentionMaskInterface.register(ROW_BY_ROW, _mask)
