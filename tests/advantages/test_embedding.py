"""Anchors compared by a static embedding in Model2Vec's format."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from proxmo_rllib.advantages import TurnTable, estimate_advantages
from proxmo_rllib.advantages.embedding import StaticEmbedding

WORDS = {"[UNK]": 0, "mug": 1, "cup": 2, "drawer": 3}


@pytest.fixture
def model(tmp_path):
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [0.96, 0.28], [0.0, 1.0]], dtype=np.float32)
    save_file({"embeddings": vectors}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_text_is_the_mean_of_its_words(model):
    vectors = StaticEmbedding(model)(["mug drawer", "", "cup"])
    np.testing.assert_allclose(vectors, [[0.5, 0.5], [0.0, 0.0], [0.96, 0.28]], rtol=1e-6)


def test_synonyms_are_neighbours_where_words_in_common_are_none(model):
    table = TurnTable(
        group=[0] * 3, episode=[0, 1, 2], reward=[1.0, 0.0, 0.0], success=[True, False, False],
        anchor=["mug", "cup", "drawer"],
    )  # fmt: skip
    advantages = estimate_advantages(table, "proxmo", similarity=f"embedding:{model}")
    similar = {n.anchor: n.similarity for n in advantages.explain(0).neighbours}
    assert similar == {"mug": 1.0, "cup": pytest.approx(0.96), "drawer": pytest.approx(0.0)}


def test_another_file_layout_is_an_error_that_says_what_was_found(model):
    save_file({"weights": np.zeros((2, 2), dtype=np.float32)}, model / "model.safetensors")
    with pytest.raises(ValueError, match=r"has the tensors \['weights'\], not 'embeddings'"):
        StaticEmbedding(model)
