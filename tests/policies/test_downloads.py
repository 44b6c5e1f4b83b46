"""Of a model on the hub a run fetches what it reads, and no second copy of the weights."""

from __future__ import annotations

from huggingface_hub.utils import filter_repo_objects

from proxmo_rllib.policies.model_folder import DOWNLOADED, NOT_DOWNLOADED

USED = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "LICENSE", "NOTICE", "README.md"),
    *("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
}
UNUSED = {
    *("consolidated.safetensors", "consolidated.00.pth", "params.json", "original/consolidated.00.pth"),
    *("pytorch_model.bin", "adapter_model.safetensors", "adapter_config.json", "model.gguf", "onnx/model.onnx"),
}


def test_what_is_read_is_fetched_and_nothing_else() -> None:
    fetched = filter_repo_objects(
        sorted(USED | UNUSED), allow_patterns=list(DOWNLOADED), ignore_patterns=list(NOT_DOWNLOADED)
    )
    assert set(fetched) == USED
