"""Token sequences laid end to end without padding, each shared beginning once.

Rows that begin alike (the episodes of a group, the turns of a window, all prompts with the same instructions) are
sorted beside each other; of each, only what its predecessor does not have is laid down:

    rows            A B C D E            packed      A B C D E | X Y | P Q R
                    A B C X Y            positions   0 1 2 3 4 | 3 4 | 0 1 2
                    P Q R                span X Y attends to A B C, and causally to itself

A token's hidden state depends on the tokens before it alone, so a beginning that is computed once serves all of them,
and its gradient is the sum of theirs. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

# A beginning shorter than this is not worth another pair of matrix products.
_WORTH_SHARING = 8


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive packed tokens of one row.

    Attributes:
        start: of its tokens in the packed sequence.
        stop: behind the last of them.
        context: the ranges of packed tokens that stand before them in their row, in order.
    """

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]

    @property
    def num_context(self) -> int:
        """Tokens before it in its row."""
        return sum(stop - start for start, stop in self.context)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows without padding.

    Attributes:
        token_ids: int64 [tokens].
        positions: of each token in its row, int64 [tokens].
        spans: that the tokens are divided into, in order.
        places: of each row's tokens among the packed ones, row after row in the order given, int64 [row tokens].
        row_starts: where each row begins in `places`, int64 [rows].
    """

    token_ids: np.ndarray
    positions: np.ndarray
    spans: tuple[Span, ...]
    places: np.ndarray
    row_starts: np.ndarray


def sort_rows(token_ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in an order in which those that begin alike are neighbours.

    Args:
        token_ids: [rows, longest], padded on the right.
        lengths: [rows].

    Returns:
        The order, int64 [rows], and of each row in that order how many tokens it has in common with the one before it,
        int64 [rows]; too few to be worth it count as none.
    """
    # Big-endian bytes sort as the numbers do.
    big = np.ascontiguousarray(token_ids.astype(">u4"))
    keys = [big[row, :length].tobytes() for row, length in enumerate(lengths)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    shared = np.zeros(len(order), np.int64)
    if len(order) > 1:
        before, after = order[:-1], order[1:]
        limit = np.minimum(lengths[before], lengths[after])
        differs = token_ids[before] != token_ids[after]
        first = np.where(differs.any(1), differs.argmax(1), token_ids.shape[1])
        common = np.minimum(first, limit)
        shared[1:] = np.where(common >= _WORTH_SHARING, common, 0)
    return order, shared


def split_for_packing(token_ids: torch.Tensor, lengths: torch.Tensor, max_tokens: int) -> list[torch.Tensor]:
    """Rows of each micro-batch: those that begin alike together, packed tokens within the budget.

    Args:
        token_ids: int64 [rows, longest].
        lengths: int64 [rows].
        max_tokens: packed tokens of a micro-batch; a single longer row gets one of its own.

    Returns:
        Row indices, int64, each row in exactly one micro-batch.
    """
    sizes = lengths.cpu().numpy()
    order, shared = sort_rows(token_ids.cpu().numpy(), sizes)
    parts: list[list[int]] = []
    filled = max_tokens + 1
    for row, common in zip(order, shared, strict=True):
        if filled + sizes[row] - common > max_tokens:
            parts.append([])
            filled = common = 0  # nothing before it is in the same micro-batch
        parts[-1].append(int(row))
        filled += int(sizes[row] - common)
    return [torch.tensor(part, dtype=torch.int64, device=lengths.device) for part in parts]


def pack(token_ids: np.ndarray, lengths: np.ndarray) -> Packed:
    """Packs rows.

    Args:
        token_ids: [rows, longest], padded on the right.
        lengths: [rows].
    """
    order, shared = sort_rows(token_ids, lengths)
    row_starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    places = np.empty(int(lengths.sum()), np.int64)
    ids, positions, spans = [], [], []
    path: list[tuple[int, int]] = []
    end = 0
    for row, common in zip(order.tolist(), shared.tolist(), strict=True):
        context = tuple(_beginning(path, common))
        own = int(lengths[row]) - common
        path = [*context, (end, end + own)] if own else list(context)
        if own:
            ids.append(token_ids[row, common : common + own])
            positions.append(np.arange(common, common + own))
            spans.append(Span(end, end + own, context))
        end += own
        at = row_starts[row]
        for start, stop in path:
            places[at : at + stop - start] = np.arange(start, stop)
            at += stop - start
    return Packed(np.concatenate(ids).astype(np.int64), np.concatenate(positions), tuple(spans), places, row_starts)


def _beginning(path: list[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """The first so many tokens of a path."""
    for start, stop in path:
        if length <= 0:
            return
        yield start, min(stop, start + length)
        length -= stop - start
