"""The kernel of each group of a table: the words of small groups are worked on together, those of a large one alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from proxmo_rllib.advantages import similarity
from proxmo_rllib.advantages.embedding import load_embedding
from proxmo_rllib.advantages.similarity import (
    CosineKernel,
    ExactKernel,
    Kernel,
    cosine_kernel_of_terms,
    kernel_from_function,
)
from proxmo_rllib.advantages.table import TurnTable
from proxmo_rllib.advantages.tfidf import tfidf_by_group

if TYPE_CHECKING:
    from proxmo_rllib.advantages.proximity import SoftAggregation

IdfScope = Literal["group", "batch"]

LETTERS_AT_ONCE = 1 << 15  # of the anchors that are cut into words together; more only in a group that has more
GROUPS_AT_ONCE = 32


def kernels_by_group(table: TurnTable, first: int, last: int, options: SoftAggregation) -> Iterator[Kernel]:
    """Kernels of the groups from `first` to before `last`."""
    if options.similarity == "tfidf":
        yield from _tfidf_kernels(table, first, last, options)
        return
    function = options.similarity if callable(options.similarity) else None
    for start, stop in pairwise(table.anchor_starts[first : last + 1].tolist()):
        if options.similarity == "exact":
            yield ExactKernel()
        else:
            function = function or load_embedding(str(options.similarity))
            yield kernel_from_function(function, table.distinct_anchors[start:stop])


def _tfidf_kernels(table: TurnTable, first: int, last: int, options: SoftAggregation) -> Iterator[CosineKernel]:
    starts = table.anchor_starts
    turns = np.bincount(table.anchor_of).astype(np.float64)
    batch = options.idf_scope == "batch"
    for low, high in [(0, table.num_groups)] if batch else _weighed_together(table, first, last, options):
        texts = slice(int(starts[low]), int(starts[high]))
        vectors = tfidf_by_group(
            table.distinct_anchors[texts],
            turns[texts],
            starts[low : high + 1] - starts[low],
            common_idf=batch,
            token_pattern=options.token_pattern,
            max_features=options.max_features,
            most_dense=similarity.MOST_DENSE_ENTRIES,
        )
        for of_group in islice(vectors, max(first - low, 0), last - low):
            yield cosine_kernel_of_terms(of_group, identity=options.blank_matches_itself)


def _weighed_together(table: TurnTable, first: int, last: int, options: SoftAggregation) -> Iterator[tuple[int, int]]:
    """Ranges of groups whose texts are worked on at once: small ones share the price of a call, memory is bounded."""
    if options.max_features is not None:  # which chooses among the terms of all the texts that it is given
        yield from pairwise(range(first, last + 1))
        return
    letters = np.cumsum([0, *map(len, table.distinct_anchors)])[table.anchor_starts]
    low = first
    while low < last:
        limit = int(np.searchsorted(letters, letters[low] + LETTERS_AT_ONCE, side="right")) - 1
        high = min(max(limit, low + 1), low + GROUPS_AT_ONCE, last)
        yield low, high
        low = high
