"""TF-IDF vectors of anchors, with the formulas of scikit-learn's TfidfVectorizer (a test compares the two).

Why not scikit-learn's own: its counting loop alone takes longer than a whole iteration of this package may, and it
counts documents, where anchors repeat and it pays to vectorise each distinct text once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from proxmo_rllib.advantages.table import FloatArray, IntArray
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN, Tokens, tokenize


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
    tokens = tokenize(anchors, token_pattern)
    if max_features is not None and len(tokens.terms) > max_features:
        tokens = _most_frequent(tokens, counts, max_features)
    size = len(tokens.terms)
    cells, term_frequency = _count(tokens.text_of * size + tokens.term_of)
    rows, cols = np.divmod(cells, max(size, 1))
    document_frequency = np.bincount(cols, weights=counts[rows], minlength=size)
    idf = np.log((1.0 + counts.sum()) / (1.0 + document_frequency)) + 1.0
    values = term_frequency * idf[cols]
    norm = np.sqrt(np.bincount(rows, weights=values**2, minlength=len(anchors)))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(anchors)))])
    return sparse.csr_array((values / norm[rows], cols, starts), shape=(len(anchors), size))


def _count(cells: IntArray) -> tuple[IntArray, FloatArray]:
    """The distinct values, ascending, and how often each occurs."""
    distinct, counts = np.unique(cells, return_counts=True)
    return distinct, counts.astype(np.float64)


def _most_frequent(tokens: Tokens, counts: FloatArray, max_features: int) -> Tokens:
    """The tokens of the terms that occur most often; among equals numpy's sort decides, as it does in scikit-learn."""
    words = list(tokens.terms)
    alphabetical = np.array(sorted(range(len(words)), key=words.__getitem__))
    frequency = np.bincount(tokens.term_of, weights=counts[tokens.text_of], minlength=len(words))[alphabetical]
    kept = alphabetical[np.argsort(-frequency.astype(np.int64))[:max_features]]
    place = np.full(len(words), -1)
    place[kept] = np.arange(len(kept))
    term_of = place[tokens.term_of]
    return Tokens(tokens.text_of[term_of >= 0], term_of[term_of >= 0], [words[term] for term in kept.tolist()])
