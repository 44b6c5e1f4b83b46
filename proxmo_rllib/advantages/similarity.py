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

MOST_DENSE_ENTRIES = 1 << 25  # 256 MiB: a dense product is several times faster than a sparse one, where it fits


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
        columns = self.vectors if len(cols) == self.vectors.shape[0] else self.vectors[cols]
        # The same array on both sides: numpy then computes only one half of the product.
        asking = columns if len(rows) == len(cols) else self.vectors[rows]
        product = asking @ columns.T
        similarity: FloatArray = product.toarray() if isinstance(product, sparse.csr_array) else product
        if self.identity:
            similarity[np.arange(len(rows)), np.searchsorted(cols, rows)] = 1.0
        return similarity


def sparse_cosine_kernel(vectors: sparse.csr_array, *, identity: bool = True) -> CosineKernel:
    """Cosine of sparse unit vectors, made dense over the columns that matter if they fit.

    A term of only one anchor changes no similarity to another anchor. With `identity` it is dropped, which shortens
    the dense vectors to the shared vocabulary.
    """
    used = np.bincount(vectors.indices, minlength=vectors.shape[1])
    kept = np.flatnonzero(used > (1 if identity else 0))
    if vectors.shape[0] * len(kept) > MOST_DENSE_ENTRIES:
        return CosineKernel(vectors, identity)
    column = np.full(vectors.shape[1], -1)
    column[kept] = np.arange(len(kept))
    dense = np.zeros((vectors.shape[0], len(kept)))
    rows, cols = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr)), column[vectors.indices]
    shared = cols >= 0
    dense[rows[shared], cols[shared]] = vectors.data[shared]
    return CosineKernel(dense, identity)


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
