"""A model's folder or a checkpoint may be damaged: it is read, or a ValueError names the file. No code in it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.numpy import save

from proxmo_rllib.inference.weights import WeightsMismatchError, check_manifest
from proxmo_rllib.model_checks import check_model
from proxmo_rllib.policies.model_folder import INDEX, SINGLE, read_header, read_model_folder
from proxmo_rllib.training_run.folder import checkpoint_of
from tests.fuzz.inputs import as_bytes, changed, damaged, files, fuzz, outcome

TENSORS = {"model.norm.weight": np.zeros(4, np.float32), "lm_head.weight": np.zeros((6, 4), np.float32)}
WEIGHTS = save(TENSORS)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 6,
    "dtype": "float32",
}
SHARDS = {"weight_map": {"model.norm.weight": "model-1.safetensors", "lm_head.weight": "model-2.safetensors"}}


def header_of(weights: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(weights[:8], "little")
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


@st.composite
def weight_files(draw: Any) -> bytes:
    if draw(st.booleans()):
        return draw(damaged(WEIGHTS))
    header, rest = header_of(WEIGHTS)
    text = draw(changed(header).map(as_bytes) | damaged(as_bytes(header)))
    return len(text).to_bytes(8, "little") + text + rest


@fuzz
@given(content=weight_files())
def test_the_header_of_weights_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / SINGLE
    file.write_bytes(content)
    found, refusal = outcome(lambda: read_header(file), ValueError)
    if refusal is not None:
        assert str(file) in refusal
        return
    assert all(isinstance(name, str) and all(type(n) is int and n >= 0 for n in shape) for name, shape in found.items())
    expected = {name: tensor.shape for name, tensor in TENSORS.items()}
    outcome(lambda: check_manifest(found, expected), WeightsMismatchError)


@fuzz
@given(data=st.data(), broken=st.sampled_from(["config.json", INDEX, "model-1.safetensors", SINGLE]))
def test_a_models_folder_is_read_or_the_broken_file_is_named(tmp_path: Path, data: st.DataObject, broken: str) -> None:
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "config.json").write_bytes(as_bytes(CONFIG))
    for number, name in enumerate(TENSORS, start=1):
        (tmp_path / f"model-{number}.safetensors").write_bytes(save({name: TENSORS[name]}))
    (tmp_path / INDEX).write_bytes(as_bytes(SHARDS))
    content = {"config.json": files(CONFIG), INDEX: files(SHARDS)}.get(broken, weight_files())
    (tmp_path / broken).write_bytes(data.draw(content))
    _, refusal = outcome(lambda: read_model_folder(tmp_path), ValueError)
    assert refusal is None or str(tmp_path) in refusal


@pytest.fixture(scope="module")
def policy_files(tiny_policy: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in tiny_policy.iterdir() if file.is_file()}


def is_enormous(config: bytes) -> bool:
    """Whether it asks for a model that would take for ever to make: nothing is wrong with that."""
    text, refusal = outcome(lambda: json.loads(config), ValueError, RecursionError)
    return refusal is None and isinstance(text, dict) and any(type(n) is int and n > 10**5 for n in text.values())


@fuzz
@given(data=st.data(), engine=st.sampled_from(["transformers", "vllm"]))
def test_a_model_is_checked_before_a_start_or_refused(
    tmp_path: Path, policy_files: dict[str, bytes], data: st.DataObject, engine: str
) -> None:
    broken = data.draw(st.sampled_from(["config.json", "tokenizer_config.json", SINGLE]))
    for name, content in policy_files.items():
        (tmp_path / name).write_bytes(content)
    content = policy_files[broken]
    wrong = damaged(content) if broken == SINGLE else files(json.loads(content))
    written = data.draw(wrong)
    assume(broken != "config.json" or not is_enormous(written))
    (tmp_path / broken).write_bytes(written)
    outcome(lambda: check_model(str(tmp_path), engine), ValueError)


@fuzz
@given(content=files({"type": "checkpoint", "checkpoint_version": "2.1"}), run=files({"iterations": 3}))
def test_a_folder_is_a_checkpoint_or_a_value_error(tmp_path: Path, content: bytes, run: bytes) -> None:
    (tmp_path / "rllib_checkpoint.json").write_bytes(content)
    assert outcome(lambda: checkpoint_of(tmp_path), ValueError)[0] in (tmp_path, None)
    other = tmp_path / "run"
    other.mkdir(exist_ok=True)
    (other / "run.json").write_bytes(run)
    _, refusal = outcome(lambda: checkpoint_of(other), ValueError)
    assert refusal is None or str(other) in refusal
