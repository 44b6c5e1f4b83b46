"""TF-IDF vectors of anchors, with the formulas of scikit-learn's TfidfVectorizer (a test compares the two).

Why not scikit-learn's own: its counting loop alone takes longer than a whole iteration of this package may, and it
counts documents, where anchors repeat and it pays to vectorise each distinct text once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from scipy import sparse

from proxmo_rllib.advantages.table import FloatArray, IntArray
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN, Tokens, tokenize

Matrix: TypeAlias = FloatArray | sparse.csr_array

MOST_DENSE_ENTRIES = 1 << 25  # 256 MiB: dense arithmetic is several times faster than sparse, where it fits


def tfidf_by_group(
    texts: Sequence[str],
    counts: FloatArray,
    starts: IntArray,
    *,
    common_idf: bool = False,
    token_pattern: str = TOKEN_PATTERN,
    max_features: int | None = None,
    most_dense: int = MOST_DENSE_ENTRIES,
) -> Iterator[Matrix]:
    """Unit vectors `tf * (ln((1 + n) / (1 + df)) + 1)` of lower-cased texts, group after group.

    Args:
        texts: of all groups, distinct within each.
        counts: how many turns have each text, shape [texts]; document frequencies count turns, not distinct texts.
        starts: of the texts of each group, and the end of the last one, shape [groups + 1].
        common_idf: `n` and `df` from all groups together, and not from each alone.
        token_pattern: regular expression of one token.
        max_features: keep only the terms that occur most often in all of the texts; None keeps all.
        most_dense: entries that the dense vectors of all groups may have; sparse ones are made of more.

    Yields:
        Shape [texts of the group, terms of the group]; a text without tokens has a zero row.
    """
    tokens = tokenize(texts, token_pattern)
    if max_features is not None and len(tokens.terms) > max_features:
        tokens = _most_frequent(tokens, counts, max_features)
    terms, frequencies = _term_frequencies(tokens, starts, most_dense)
    turns = [counts[start:stop] for start, stop in pairwise(starts.tolist())]
    has_term: Iterator[Matrix] = ((frequency > 0).astype(np.float64) for frequency in frequencies)
    found = [of_texts @ has for of_texts, has in zip(turns, has_term, strict=True)]
    documents = [of_texts.sum() for of_texts in turns]
    if common_idf:
        total = np.bincount(np.concatenate(terms), weights=np.concatenate(found), minlength=len(tokens.terms))
        found, documents = [total[of_group] for of_group in terms], [counts.sum()] * len(turns)
    for frequency, df, n in zip(frequencies, found, documents, strict=True):
        yield _unit_rows(frequency, np.log((1.0 + n) / (1.0 + df)) + 1.0)


def tfidf_vectors(
    anchors: Sequence[str],
    counts: FloatArray,
    *,
    token_pattern: str = TOKEN_PATTERN,
    max_features: int | None = None,
) -> sparse.csr_array:
    """`tfidf_by_group` of one group, as a sparse matrix."""
    starts = np.array([0, len(anchors)])
    (vectors,) = tfidf_by_group(anchors, counts, starts, token_pattern=token_pattern, max_features=max_features)
    return sparse.csr_array(vectors)


def _term_frequencies(tokens: Tokens, starts: IntArray, most_dense: int) -> tuple[list[IntArray], list[Matrix]]:
    """The terms of each group, ascending, and how often each of its texts has each of them."""
    groups, size, texts = len(starts) - 1, len(tokens.terms), np.diff(starts)
    group_of = np.repeat(np.arange(groups), texts)
    pair = (group_of * size).take(tokens.text_of) + tokens.term_of
    has = np.zeros((groups, size), dtype=bool)
    has.ravel()[pair] = True
    terms = [np.flatnonzero(row) for row in has]
    column = (np.cumsum(has, axis=1) - 1).ravel().take(pair)
    widths = has.sum(axis=1)
    shapes = list(zip(texts.tolist(), widths.tolist(), strict=True))
    ends = np.concatenate([[0], np.cumsum(texts * widths)])
    row = np.arange(len(group_of)) - starts[group_of]  # of a text in its group
    if ends[-1] > most_dense:
        parts = [slice(*bounds) for bounds in pairwise(np.searchsorted(tokens.text_of, starts).tolist())]
        cells = [(row[tokens.text_of[part]], column[part]) for part in parts]
        ones = [np.ones(len(columns)) for _, columns in cells]
        return terms, [
            sparse.csr_array(tuple(cell), shape=shape) for *cell, shape in zip(ones, cells, shapes, strict=True)
        ]
    # The matrices of all groups one behind the other, counted at once.
    places = (ends[group_of] + row * widths[group_of]).take(tokens.text_of) + column
    entries = np.bincount(places, minlength=ends[-1]).astype(np.float64)
    bounds = pairwise(ends.tolist())
    return terms, [entries[start:stop].reshape(shape) for (start, stop), shape in zip(bounds, shapes, strict=True)]


def _unit_rows(frequency: Matrix, idf: FloatArray) -> Matrix:
    """Rows of `frequency * idf`, made of length 1 where they have any."""
    if isinstance(frequency, sparse.csr_array):
        weighted = frequency.multiply(idf[None, :]).tocsr()
        norm = np.sqrt(weighted.power(2).sum(axis=1))
        return weighted.multiply(1.0 / np.where(norm > 0.0, norm, 1.0)[:, None]).tocsr()
    vectors = frequency * idf
    norm = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors *= 1.0 / np.where(norm > 0.0, norm, 1.0)[:, None]
    return vectors


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
