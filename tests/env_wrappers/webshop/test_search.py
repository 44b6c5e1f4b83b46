"""Terms, stems and the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from env_wrappers.webshop import index as index_module
from env_wrappers.webshop.analysis import terms
from env_wrappers.webshop.index import Index, Postings, PostingsBuilder, rounded_length
from env_wrappers.webshop.stemming import stem

TEXTS = ["a red cotton dress", "cotton, cotton and more cotton", "", "red shoes for men's feet", "the dress"] * 7


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # Porter's own examples, a few of each step.
        ("caresses", "caress"), ("ponies", "poni"), ("cats", "cat"), ("feed", "feed"), ("agreed", "agre"),
        ("plastered", "plaster"), ("motoring", "motor"), ("sing", "sing"), ("conflated", "conflat"), ("hopping", "hop"),
        ("falling", "fall"), ("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("relational", "relat"),
        ("digitizer", "digit"), ("vietnamization", "vietnam"), ("formaliti", "formal"), ("triplicate", "triplic"),
        ("goodness", "good"), ("adoption", "adopt"), ("effective", "effect"), ("probate", "probat"), ("rate", "rate"),
        ("controll", "control"), ("roll", "roll"),
        # The author's departures.
        ("possibly", "possibl"), ("apology", "apolog"), ("is", "is"),
    ],
)  # fmt: skip
def test_stems_are_porters(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("men's t-shirts & the tanks", ["men", "t", "shirt", "tank"]),
        ("50.00 dollars, 1,000 w/o", ["50.00", "dollar", "1,000", "w", "o"]),
        ("(size:small)", ["size:smal"]),
        ("日本 café\u00a0✔ ✿", ["日", "本", "café", "✔"]),
        ("_ ... '", []),
        ("x" * 300, ["x" * 255, "x" * 45]),
    ],
)
def test_text_is_cut_as_lucene_cuts_it(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_lengths_are_rounded_as_in_lucenes_byte() -> None:
    lengths = np.array([0, 1, 23, 24, 39, 40, 41, 42, 56, 59, 248, 263, 264])
    assert rounded_length(lengths).tolist() == [0, 1, 23, 24, 39, 40, 40, 42, 56, 56, 248, 248, 264]


def test_equal_scores_are_ordered_by_id_and_only_what_matches_is_found() -> None:
    ids = [f"id{index:02d}" for index in reversed(range(len(TEXTS)))]
    index = Index.build(TEXTS, ids)
    found = index.search("dress", 50)
    assert [TEXTS[row] for row in found] == ["the dress"] * 7 + ["a red cotton dress"] * 7
    assert [ids[row] for row in found[:7]] == sorted(ids[row] for row in found[:7])
    assert index.search("dress", 3) == found[:3]
    assert index.search("the of unheard", 5) == []


def test_an_index_that_was_written_in_blocks_is_the_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"id{index}" for index in range(len(TEXTS))]
    held = Index.build(TEXTS, ids)
    monkeypatch.setattr(index_module, "BLOCK", 4)
    Index.build(TEXTS, ids, tmp_path).save(tmp_path)
    mapped = Index.load(tmp_path)
    assert mapped.weights.tolist() == held.weights.tolist()
    assert mapped.postings.documents.tolist() == held.postings.documents.tolist()
    for query in ("red cotton", "dress men", "shoes"):
        assert mapped.search(query, 9) == held.search(query, 9)
    assert not list(tmp_path.glob("block-*"))


def test_postings_know_their_keys() -> None:
    builder = PostingsBuilder()
    for keys in (["a", "b", "a"], [], ["b", "\ud800"]):
        builder.add(keys)
    postings: Postings = builder.finish()
    span = postings.span("b")
    assert span is not None
    assert postings.documents[span].tolist() == [0, 2]
    assert postings.counts.tolist() == [2, 1, 1, 1]
    assert postings.span("\ud800") is not None
    assert postings.span("c") is None
