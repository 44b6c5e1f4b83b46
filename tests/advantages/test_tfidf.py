"""Words and their weights are scikit-learn's."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from proxmo_rllib.advantages.tfidf import tfidf_vectors
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
