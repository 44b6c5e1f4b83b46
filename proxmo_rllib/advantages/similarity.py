"""How alike two anchors are: the kernels that the soft baseline weighs turns with.

A kernel covers the distinct anchors of one group and hands out its similarity matrix in blocks, so that memory stays
bounded however large the group is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from proxmo_rllib.advantages.table import FloatArray, IntArray
from proxmo_rllib.advantages.tfidf import MOST_DENSE_ENTRIES


class Kernel(Protocol):
    """Similarities between the distinct anchors of one group."""

    def block(self, rows: IntArray, cols: IntArray) -> FloatArray:
        """Similarity of the anchors `rows` to the anchors `cols`, a fresh array of shape [rows, cols].

        Both are ascending, and `cols` contains `rows`.
        """
        ...


# A user's own similarity: distinct anchors of a group in; out comes one vector an anchor, shape [anchors, dimensions],
# compared by cosine, or a Kernel.
SimilarityFunction = Callable[[Sequence[str]], "FloatArray | Kernel"]
# "tfidf", "exact", "embedding:<folder>", or a function.
Similarity = str | SimilarityFunction


@dataclass(frozen=True, slots=True)
class ExactKernel:
    """1 for the same anchor, 0 for any other."""

    def block(self, rows: IntArray, cols: IntArray) -> FloatArray:
        return (rows[:, None] == cols[None, :]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class MatrixKernel:
    """Similarities that were computed beforehand, shape [anchors, anchors]."""

    matrix: FloatArray

    def block(self, rows: IntArray, cols: IntArray) -> FloatArray:
        return np.array(self.matrix[np.ix_(rows, cols)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class CosineKernel:
    """Cosine of unit vectors."""

    vectors: FloatArray | sparse.csr_array  # [anchors, dimensions], rows of length 1 or 0
    # A text without any word has no direction. It is as similar to itself as any text is, unless the official code's
    # zero is asked for.
    identity: bool = True

    def block(self, rows: IntArray, cols: IntArray) -> FloatArray:
        columns = _rows(self.vectors, cols)
        # The same array on both sides: numpy then computes only one half of the product.
        asking = columns if len(rows) == len(cols) else _rows(self.vectors, rows)
        product = asking @ columns.T
        similarity: FloatArray = product.toarray() if isinstance(product, sparse.csr_array) else product
        if self.identity:
            similarity[np.arange(len(rows)), np.searchsorted(cols, rows)] = 1.0
        return similarity


def is_bounded(kernel: Kernel) -> bool:
    """Whether it is known to be symmetric, with each anchor as similar to itself as any can be: 1."""
    return isinstance(kernel, ExactKernel) or (isinstance(kernel, CosineKernel) and kernel.identity)


def _rows(vectors: FloatArray | sparse.csr_array, rows: IntArray) -> FloatArray | sparse.csr_array:
    """Some rows, ascending; without a copy if there is none between them."""
    first, last = int(rows[0]), int(rows[-1])
    return vectors[first : last + 1] if last - first + 1 == len(rows) else vectors[rows]


def cosine_kernel_of_terms(vectors: FloatArray | sparse.csr_array, *, identity: bool = True) -> CosineKernel:
    """Cosine of unit vectors of terms, made dense over the columns that matter if they fit.

    A term of only one anchor changes no similarity to another anchor. With `identity` it is dropped, which shortens
    the vectors to the shared vocabulary.
    """
    if identity:
        used = np.asarray((vectors != 0.0).sum(axis=0))
        if used.min(initial=2) < 2:
            vectors = vectors[:, np.flatnonzero(used > 1)]
    if isinstance(vectors, sparse.csr_array) and vectors.shape[0] * vectors.shape[1] <= MOST_DENSE_ENTRIES:
        vectors = vectors.toarray()
    return CosineKernel(vectors, identity)


def cosine_kernel(vectors: np.ndarray) -> CosineKernel:
    """Cosine of any vectors, shape [anchors, dimensions]; a zero vector is like itself only."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return CosineKernel(np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0.0))


def kernel_from_function(function: SimilarityFunction, anchors: Sequence[str]) -> Kernel:
    """What a user's similarity makes of the distinct anchors of a group.

    Raises:
        ValueError: it returned neither a Kernel nor one finite vector an anchor.
    """
    result = function(anchors)
    if hasattr(result, "block"):
        return result
    vectors = np.asarray(result)
    if vectors.ndim != 2 or len(vectors) != len(anchors) or not np.isfinite(vectors).all():
        raise ValueError(
            f"similarity={function!r}: returned an array of shape {vectors.shape} for {len(anchors)} anchors; "
            "return one finite vector an anchor, shape [anchors, dimensions], or a Kernel."
        )
    return cosine_kernel(vectors)
