"""Attention over packed rows: each span attends to what stands before it in its row, and to nothing else.

On a CPU the spans are attended to one after another, by SDPA. On a CUDA device in half precision PyTorch's own
variable-length attention takes all of them at once; that way has not been run yet.

Registered with transformers (5.x) under the name PACKED. Without a packed sequence it is SDPA.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from proxmo_rllib.learner.packing import Packed, pack
from proxmo_rllib.learner.sharding import device_of

logger = logging.getLogger(__name__)

PACKED = "packed"
# Queries of one call with a mask.
_BLOCK = 256
# Keyword arguments that attention may get and that change nothing here.
_WITHOUT_EFFECT = frozenset(
    {
        "dropout",
        "is_causal",
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "output_router_logits",
        "past_key_values",
    }
)

# Of a logprob, absolute, in float32: rounding explains a hundredth of it.
_TOLERANCE = 1e-3

_is_packed: ContextVar[bool] = ContextVar("is_packed", default=False)


class NotPackableError(ValueError):
    """The model's attention asks for more than packed attention has."""


class Layout:
    """Packed rows as the attention of every layer reads them.

    Args:
        packed: the rows.
        device: of the model.
    """

    def __init__(self, packed: Packed, device: torch.device) -> None:
        self.lengths = [span.stop - span.start for span in packed.spans]
        self.before = [span.num_context for span in packed.spans]
        self.row_lengths = [before + own for before, own in zip(self.before, self.lengths, strict=True)]
        self._device = device
        self._bands: dict[tuple[int | None, torch.dtype], torch.Tensor] = {}
        self._row_index: torch.Tensor | None = None
        self._ends: tuple[torch.Tensor, torch.Tensor] | None = None
        if any(self.before):
            ranges = [np.arange(*r) for span in packed.spans for r in (*span.context, (span.start, span.stop))]
            self._row_index = torch.from_numpy(np.concatenate(ranges)).to(device)

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of every span, all tokens of its row up to its end, span after span.

        Args:
            tensor: [1, heads, tokens, head size]

        Returns:
            [1, heads, row tokens, head size]
        """
        return tensor if self._row_index is None else tensor.index_select(2, self._row_index)

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each span ends among the packed tokens, and each row among `rows`, from 0 on: int32 [spans + 1] both.

        Made once: every layer asks, and each transfer to a device would wait for all that is under way there.
        """
        if self._ends is None:
            sums = (np.cumsum([0, *sizes]) for sizes in (self.lengths, self.row_lengths))
            spans, rows = (torch.from_numpy(ends.astype(np.int32)).to(self._device) for ends in sums)
            self._ends = spans, rows
        return self._ends

    def mask(self, queries: int, before: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of consecutive queries.

        Args:
            queries: their number, at most `_BLOCK`.
            before: tokens of the row before them.
            window: tokens that each sees, itself included; None for all before it.
            dtype: of the scores.

        Returns:
            [queries, before + queries], a view: all masks are parts of one band, which lies diagonally.
        """
        if (window, dtype) not in self._bands:
            width = max(self.row_lengths)
            query = torch.arange(_BLOCK, device=self._device)[:, None]
            key = torch.arange(-width, _BLOCK, device=self._device)
            hidden = key > query
            if window is not None:
                hidden |= key <= query - window
            band = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
            self._bands[window, dtype] = band.masked_fill_(hidden, float("-inf"))
        first = max(self.row_lengths) - before
        return self._bands[window, dtype][:queries, first : first + before + queries]


@contextmanager
def without_masks() -> Iterator[None]:
    """Within it transformers makes no masks: those of a packed sequence would be a square of it."""
    token = _is_packed.set(True)
    try:
        yield
    finally:
        _is_packed.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, head size]
        key: [1, key heads, tokens, head size]
        value: as the key.
        attention_mask: None where the sequence is packed.
        scaling: of the scores.
        sliding_window: tokens that each sees, itself included; None for all before it.
        packed: how the tokens are packed; None for plain rows.
        **kwargs: of the layer.

    Returns:
        [1, tokens, heads, head size]
    """
    if packed is None:
        kwargs |= {"scaling": scaling, "sliding_window": sliding_window}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if isinstance(packed, _Watched):
        packed.num_calls += 1
        packed.num_windows += sliding_window is not None
    more = [name for name, given in kwargs.items() if given is not None and name not in _WITHOUT_EFFECT]
    if more or attention_mask is not None or len(query) != 1:
        raise NotPackableError(f"{type(module).__name__} asks for {', '.join(more) or 'a mask of its own'}")
    query, key, value = (_in_arithmetics_type(tensor) for tensor in (query, key, value))
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _all_at_once(query, key, value, packed, scaling, sliding_window), None
    return _one_by_one(query, key, value, packed, scaling, sliding_window), None


def _in_arithmetics_type(tensor: torch.Tensor) -> torch.Tensor:
    """As autocast has SDPA's arguments: rotary embeddings leave queries and keys in float32, and values are not."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Layout, scale: float | None, window: int | None
) -> torch.Tensor:
    # All parts of a tensor by one split: its backward pass puts them together once.
    queries = query.split(packed.lengths, 2)
    keys = packed.rows(key).split(packed.row_lengths, 2)
    values = packed.rows(value).split(packed.row_lengths, 2)
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    for span in zip(queries, keys, values, packed.before, strict=True):
        for q, k, v, mask in _calls(*span, window, packed):
            output = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
            )
            outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, 1)


def _calls(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, before: int, window: int | None, packed: Layout
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """A span as one call of SDPA, or as several where its mask would be a square of it."""
    if window is not None and window >= k.shape[2]:
        window = None
    if not before and window is None:
        yield q, k, v, None
        return
    for start in range(0, q.shape[2], _BLOCK):
        part = q[:, :, start : start + _BLOCK]
        there = before + start + part.shape[2]
        mask = packed.mask(part.shape[2], before + start, window, q.dtype)
        yield part, k[:, :, :there], v[:, :, :there], mask


def _all_at_once(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Layout, scale: float | None, window: int | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    spans, rows = packed.ends()
    output = varlen_attn(
        query[0].transpose(0, 1),
        packed.rows(key)[0].transpose(0, 1),
        packed.rows(value)[0].transpose(0, 1),
        spans,
        rows,
        max(packed.lengths),
        max(packed.row_lengths),
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output[None]


def _mask(*args: Any, **kwargs: Any) -> Any:
    return None if _is_packed.get() else sdpa_mask(*args, **kwargs)


def use_packed_attention(lm: Any) -> str | None:
    """Puts a model on packed attention if that computes what its own does.

    Args:
        lm: a causal LM of transformers, on the attention that computes it right.

    Returns:
        None, or why it stays on its own attention.
    """
    own = lm.config._attn_implementation
    reason = _cannot_be_packed(lm.config.get_text_config(), own)
    if reason is None:
        plain = _plain_logprobs(lm)
        lm.set_attn_implementation(PACKED)
        try:
            error = float((_packed_logprobs(lm) - plain).abs().max())
            reason = None if error <= _TOLERANCE else f"packed, its logprobs differ by {error:.3g}"
        except (NotPackableError, TypeError) as error:  # a TypeError: its forward takes no such argument
            reason = str(error)
    if reason is not None:
        lm.set_attn_implementation(own)
        logger.info("%s is computed in padded rows: %s.", type(lm).__name__, reason)
    return reason


def _cannot_be_packed(config: Any, attention: str) -> str | None:
    if attention != "sdpa":
        return f"its attention is {attention!r}"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds or getattr(config, "attention_chunk_size", None):
        return f"it has layers of the kind {', '.join(sorted(kinds)) or 'chunked_attention'}"
    return None


def _probe(lm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share beginnings and rows that do not."""
    rng = np.random.default_rng(0)
    ids = rng.integers(lm.config.get_text_config().vocab_size, size=(4, 40))
    ids[1, :20] = ids[0, :20]
    ids[2, :30] = ids[1, :30]
    return ids, np.array([40, 33, 40, 17])


@torch.no_grad()
def _plain_logprobs(lm: Any) -> torch.Tensor:
    device = device_of(lm)
    rows = [torch.from_numpy(row[:length])[None].to(device) for row, length in zip(*_probe(lm), strict=True)]
    return torch.cat([lm(input_ids=row, use_cache=False).logits[0].log_softmax(-1) for row in rows])


@torch.no_grad()
def _packed_logprobs(lm: Any) -> torch.Tensor:
    device = device_of(lm)
    packed = pack(*_probe(lm))
    watched = _Watched(packed, device)
    ids, positions = (torch.from_numpy(array)[None].to(device) for array in (packed.token_ids, packed.positions))
    with without_masks():
        logits = lm(input_ids=ids, position_ids=positions, packed=watched, use_cache=False).logits[0]
    config = lm.config.get_text_config()
    windows = _windows(config)
    if watched.num_calls != config.num_hidden_layers or watched.num_windows != windows:
        raise NotPackableError(
            f"of its {config.num_hidden_layers} layers {watched.num_calls} hand on how the rows are packed, and "
            f"{watched.num_windows} of {windows} their window"
        )
    return logits[torch.from_numpy(packed.places).to(device)].log_softmax(-1)


def _windows(config: Any) -> int:
    """Layers that see a window only, which no probe of a few tokens would show."""
    if getattr(config, "sliding_window", None) is None or getattr(config, "use_sliding_window", True) is False:
        return 0
    kinds = getattr(config, "layer_types", None)
    return config.num_hidden_layers if kinds is None else list(kinds).count("sliding_attention")


class _Watched(Layout):
    """Counts the layers that ask for it."""

    num_calls = num_windows = 0


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _mask)
