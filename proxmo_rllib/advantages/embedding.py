"""Anchors compared by a small static embedding: the mean of one learned vector a token, no network to run.

Reads the folder that Model2Vec models are published as (https://github.com/MinishLab/model2vec), for instance
`minishlab/potion-base-8M`: `tokenizer.json`, and `model.safetensors` with a tensor `embeddings` of shape
[vocabulary, dimensions].
Needs the packages tokenizers and safetensors, which are imported only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from proxmo_rllib.advantages.table import FloatArray

PREFIX = "embedding:"  # similarity="embedding:<folder>"


class StaticEmbedding:
    """Mean token vector of each text; to be given as `similarity=StaticEmbedding(folder)`.

    Args:
        folder: of the model.

    Raises:
        FileNotFoundError: a file of the model is missing.
        ValueError: the model has no tensor `embeddings`.
    """

    def __init__(self, folder: str | Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(folder).expanduser()
        files = {name: folder / name for name in ("tokenizer.json", "model.safetensors")}
        for name, path in files.items():
            if not path.is_file():
                raise FileNotFoundError(
                    f"similarity={PREFIX}{folder}: no {name} in that folder; download a Model2Vec model into it, for "
                    "instance with `hf download minishlab/potion-base-8M --local-dir <folder>`."
                )
        tensors = load_file(files["model.safetensors"])
        if "embeddings" not in tensors:
            raise ValueError(
                f"similarity={PREFIX}{folder}: model.safetensors has the tensors {sorted(tensors)}, not 'embeddings'; "
                "give the folder of a Model2Vec model."
            )
        self._vectors: FloatArray = tensors["embeddings"].astype(np.float64)
        self._tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, anchors: Sequence[str]) -> FloatArray:
        """One vector a text, shape [anchors, dimensions]; zero for a text without tokens."""
        encoded = self._tokenizer.encode_batch(list(anchors), add_special_tokens=False)
        means = np.zeros((len(encoded), self._vectors.shape[1]))
        for row, encoding in enumerate(encoded):
            if encoding.ids:
                means[row] = self._vectors[encoding.ids].mean(axis=0)
        return means


@lru_cache(maxsize=2)
def load_embedding(similarity: str) -> StaticEmbedding:
    """The embedding that `similarity="embedding:<folder>"` names, read once a process."""
    return StaticEmbedding(similarity.removeprefix(PREFIX))
