"""Words and their weights are scikit-learn's."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from proxmo_rllib.advantages import tokens as tokens_module
from proxmo_rllib.advantages.tfidf import tfidf_by_group, tfidf_vectors
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN, TWO_CHARACTER_PATTERN, tokenize

TEXTS = ["You see drawer 1.", "You see DRAWER 2, drawer 3.", "", "Ein Stück Ärger naïve 10€", "a a a b", "  \n ?"]


@given(st.lists(st.text(), max_size=5), st.sampled_from([TOKEN_PATTERN, TWO_CHARACTER_PATTERN]))
def test_words_are_those_of_the_regular_expression(texts, pattern):
    tokens = tokenize(texts, pattern)
    found = [[] for _ in texts]
    for text, term in zip(tokens.text_of, tokens.term_of, strict=True):
        found[text].append(tokens.terms[term])
    assert found == [re.findall(pattern, text.lower()) for text in texts]


@pytest.mark.parametrize("pattern", [TOKEN_PATTERN, TWO_CHARACTER_PATTERN, r"[a-z]+", r"(\w)\w*"])
@pytest.mark.parametrize("max_features", [None, 3])
def test_vectors_are_scikit_learns_on_the_turns(pattern, max_features):
    counts = np.array([3, 1, 2, 1, 4, 1])
    turns = np.repeat(np.arange(len(TEXTS)), counts)
    reference = TfidfVectorizer(token_pattern=pattern, max_features=max_features)
    expected = reference.fit_transform([TEXTS[i] for i in turns]).toarray()
    ours = tfidf_vectors(TEXTS, counts.astype(float), token_pattern=pattern, max_features=max_features).toarray()
    np.testing.assert_allclose(ours[turns] @ ours[turns].T, expected @ expected.T, atol=1e-12)


@pytest.mark.parametrize("slots", [1, 14])
def test_words_stay_apart_when_they_share_a_place_in_the_table(monkeypatch, slots):
    monkeypatch.setattr(tokens_module, "_SLOT_BITS", slots)
    rng = np.random.default_rng(0)
    long, short = "x" * 40, "y" * 3
    texts = [" ".join(f"{long if word % 2 else short}{word}" for word in rng.integers(500, size=50)) for _ in range(40)]
    tokens = tokenize(texts, TOKEN_PATTERN)
    found = [[] for _ in texts]
    for text, term in zip(tokens.text_of, tokens.term_of, strict=True):
        found[text].append(tokens.terms[term])
    assert found == [text.split() for text in texts]


@pytest.mark.parametrize("most_dense", [0, 1 << 20])
@pytest.mark.parametrize("common", [False, True])
def test_groups_weighed_together_are_each_scikit_learns(most_dense, common):
    texts, starts, counts = [*TEXTS, *TEXTS[:3]], np.array([0, 6, 9]), np.arange(1.0, 10.0)
    together = tfidf_by_group(texts, counts, starts, common_idf=common, most_dense=most_dense)
    for vectors, (start, stop) in zip(together, [(0, 6), (6, 9)], strict=True):
        seen = np.arange(9) if common else np.arange(start, stop)
        reference = TfidfVectorizer(token_pattern=TOKEN_PATTERN)
        reference.fit([texts[i] for i in np.repeat(seen, counts[seen].astype(int))])
        expected = reference.transform(texts[start:stop]).toarray()
        ours = sparse.csr_array(vectors).toarray()
        np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-12)
