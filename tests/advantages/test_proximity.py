"""The soft baseline against its formula written as loops over scikit-learn's vectors, for every switch."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from proxmo_rllib.advantages import TurnTable, estimate_advantages, proximity, similarity
from proxmo_rllib.advantages.similarity import MatrixKernel

PATTERN = r"(?u)\b\w+\b"


@pytest.fixture(scope="module")
def table() -> TurnTable:
    rng = np.random.default_rng(3)
    rows = []
    for group in range(3):
        for episode in range(4):
            success = bool(rng.integers(2))
            for step in range(int(rng.integers(1, 8))):
                words = rng.choice(["drawer", "1", "2", "mug", "you", "see", "a", "open", "shelf"], size=6)
                rows.append((group, episode, rng.normal() if step else 0.0, success, " ".join(words)))
    # Repeated anchors, within an episode and across them.
    rows = [(*row[:4], rows[0][4]) if i % 5 == 0 else row for i, row in enumerate(rows)]
    group, episode, reward, success, anchor = zip(*rows, strict=True)
    return TurnTable(group=group, episode=episode, reward=reward, success=success, anchor=anchor)


def baseline_by_loops(table, returns, *, temperature=0.1, include_self=True, window=None, idf_scope="group"):
    batch = TfidfVectorizer(token_pattern=PATTERN).fit(table.anchor)
    result = np.empty(len(table))
    for t in range(len(table)):
        rows = np.flatnonzero(table.group_of == table.group_of[t])
        texts = [table.anchor[row] for row in rows]
        vectorizer = batch if idf_scope == "batch" else TfidfVectorizer(token_pattern=PATTERN).fit(texts)
        cosine = (vectorizer.transform([table.anchor[t]]) @ vectorizer.transform(texts).T).toarray()[0]
        logits = cosine / temperature
        for place, row in enumerate(rows):
            far = window is not None and abs(table.time_step[row] - table.time_step[t]) > window
            if far or (row == t and not include_self):
                logits[place] = -np.inf
        if np.isneginf(logits).all():
            result[t] = returns[t]
            continue
        weights = np.exp(logits - logits.max())
        result[t] = weights @ returns[rows] / weights.sum()
    return result


@pytest.mark.parametrize("block", [1, 7, 1 << 19])
@pytest.mark.parametrize(
    ("options", "loops"),
    [
        ({}, {}),
        ({"psa_temperature": 0.01}, {"temperature": 0.01}),
        ({"include_self": False}, {"include_self": False}),
        ({"include_self": False, "psa_temperature": 1e-3}, {"include_self": False, "temperature": 1e-3}),
        ({"time_pooling": "step"}, {"window": 0}),
        ({"time_pooling": 2}, {"window": 2}),
        ({"time_pooling": 1, "include_self": False}, {"window": 1, "include_self": False}),
        ({"idf_scope": "batch"}, {"idf_scope": "batch"}),
    ],
)
def test_baseline_is_the_formula(table, monkeypatch, block, options, loops):
    monkeypatch.setattr(proximity, "BLOCK_ENTRIES", block)  # blocks of rows are a matter of memory only
    advantages = estimate_advantages(table, "proxmo", **options)
    expected = baseline_by_loops(table, advantages.returns, **loops)
    np.testing.assert_allclose(advantages.step, advantages.returns - expected, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"idf_scope": "batch"}, {"time_pooling": 1}])
def test_a_vocabulary_too_large_for_dense_vectors_changes_nothing(table, monkeypatch, options):
    dense = estimate_advantages(table, "proxmo", **options)
    monkeypatch.setattr(similarity, "MOST_DENSE_ENTRIES", 0)
    np.testing.assert_allclose(estimate_advantages(table, "proxmo", **options).step, dense.step, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"include_self": False}, {"time_pooling": 1}, {"idf_scope": "batch"}, {"similarity": "exact"}]
)
def test_the_neighbours_of_a_turn_make_up_its_baseline(table, options):
    advantages = estimate_advantages(table, "proxmo", **options)
    for turn in range(len(table)):
        rows, weights, _ = advantages.comparison.neighbours(turn)
        assert advantages.comparison.baseline[turn] == pytest.approx(weights @ advantages.returns[rows], abs=1e-9)
        assert advantages.comparison.neighbourhood[turn] == pytest.approx(1 / (weights**2).sum())
        assert advantages.comparison.self_weight[turn] == pytest.approx(weights[rows == turn].sum())


def test_including_the_turn_itself_shrinks_its_step_advantage_by_its_own_weight(table):
    with_self = estimate_advantages(table, "proxmo")
    without = estimate_advantages(table, "proxmo", include_self=False)
    shrunk = (1.0 - with_self.comparison.self_weight) * without.step
    np.testing.assert_allclose(with_self.step, shrunk, atol=1e-9)


def test_exact_similarity_tells_only_same_from_different(table):
    advantages = estimate_advantages(table, "proxmo", similarity="exact", psa_temperature=1e-3)
    hard = estimate_advantages(table, "proxmo_without_aggregation")
    np.testing.assert_allclose(advantages.step, hard.step, atol=1e-9)


def test_a_function_of_anchors_may_return_vectors_or_a_kernel(table):
    def lengths(anchors):
        return np.array([[len(anchor), 1.0] for anchor in anchors])

    def cosines(anchors):
        vectors = lengths(anchors)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return MatrixKernel(vectors @ vectors.T)

    by_vectors = estimate_advantages(table, "proxmo", similarity=lengths)
    by_kernel = estimate_advantages(table, "proxmo", similarity=cosines)
    np.testing.assert_allclose(by_vectors.step, by_kernel.step, atol=1e-12)
    assert not np.allclose(by_vectors.step, estimate_advantages(table, "proxmo").step)


def test_a_function_with_the_wrong_shape_is_an_error_that_says_what_to_return(table):
    with pytest.raises(ValueError, match=r"returned an array of shape \(\d+,\) .* one finite vector an anchor"):
        estimate_advantages(table, "proxmo", similarity=lambda anchors: np.ones(len(anchors)))
