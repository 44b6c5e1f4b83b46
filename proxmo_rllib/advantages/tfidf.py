"""TF-IDF vectors of anchors, with the formulas of scikit-learn's TfidfVectorizer.

Why not scikit-learn's: its counting loop alone takes longer than a whole iteration of this package may, and anchors
repeat, so that it pays to vectorise each distinct text once. A test compares the two.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy import sparse

from proxmo_rllib.advantages.table import FloatArray

# scikit-learn's default drops one-character tokens, which makes "drawer 1" and "drawer 2" the same place.
TOKEN_PATTERN = r"(?u)\b\w+\b"


def tfidf_vectors(
    anchors: Sequence[str],
    counts: FloatArray,
    *,
    token_pattern: str = TOKEN_PATTERN,
    max_features: int | None = None,
) -> sparse.csr_array:
    """Unit vectors `tf * (ln((1 + n) / (1 + df)) + 1)` of lower-cased anchors.

    Args:
        anchors: distinct texts.
        counts: how many turns have each text, shape [anchors]; document frequencies count turns, not distinct texts.
        token_pattern: regular expression of one token.
        max_features: keep only the terms that occur most often; None keeps all.

    Returns:
        Shape [anchors, terms]; a text without tokens has a zero row.
    """
    frequency = _term_frequency(anchors, re.compile(token_pattern).findall)
    if max_features is not None and frequency.shape[1] > max_features:
        # The official code's choice among equally frequent terms is numpy's; kept for parity.
        kept = np.argsort(-(counts @ frequency))[:max_features]
        frequency = frequency[:, np.sort(kept)]
    present = frequency.copy()
    present.data = np.ones_like(present.data)
    idf = np.log((1.0 + counts.sum()) / (1.0 + counts @ present)) + 1.0
    frequency.data *= idf[frequency.indices]
    norm = np.sqrt(np.bincount(_rows(frequency), weights=frequency.data**2, minlength=len(anchors)))
    norm[norm == 0.0] = 1.0
    frequency.data /= norm[_rows(frequency)]
    return frequency


def _term_frequency(anchors: Sequence[str], tokenize: re.Pattern[str].findall) -> sparse.csr_array:  # type: ignore
    tokens = [tokenize(anchor.lower()) for anchor in anchors]
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    terms = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(tokens)), dtype=np.int64, count=lengths.sum())
    documents = np.repeat(np.arange(len(tokens)), lengths)
    # Columns in alphabetical order, as scikit-learn has them.
    rank = np.empty(len(vocabulary), dtype=np.int64)
    rank[np.argsort(np.array(list(vocabulary), dtype=object), kind="stable")] = np.arange(len(vocabulary))
    matrix = sparse.coo_array((np.ones(len(terms)), (documents, rank[terms])), shape=(len(anchors), len(vocabulary)))
    return matrix.tocsr()


def _rows(matrix: sparse.csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
