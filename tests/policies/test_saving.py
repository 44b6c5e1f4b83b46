"""A checkpoint is the model that it came from, with other weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from proxmo_rllib.inference.weights import serialise
from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors
from proxmo_rllib.policies.loading import cast_weights, load_causal_lm, save_policy

KEPT = {
    "LICENSE": "do as you like",
    "NOTICE.txt": "by somebody",
    "README.md": "---\nlicense: apache-2.0\n---\n",
    "modeling_own.py": "# code of the model's own\n",
}
DROPPED = (
    "pytorch_model.bin",
    "consolidated.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
    "model.gguf",
)


@pytest.fixture
def model(tiny_policy: Path, tmp_path: Path) -> Path:
    """A folder as they come from the hub: stop tokens of its own, templates, licence, weights in other forms."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_policy.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    GenerationConfig(eos_token_id=[3, 5], do_sample=True, temperature=0.6).save_pretrained(folder)
    for name, text in KEPT.items():
        (folder / name).write_text(text)
    for name in DROPPED:
        (folder / name).write_bytes(b"weights")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    return folder


def save(model: Path, target: Path, dtype: torch.dtype = torch.float32) -> None:
    lm = load_causal_lm(model)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.1)
    save_policy(model, [memoryview(serialise(checkpoint_tensors(lm, dtype)))], target)


def test_everything_but_the_weights_is_as_it_was(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "saved" / "policy"
    save(model, target)
    for file in model.rglob("*"):
        copy = target / file.relative_to(model)
        if file.name in DROPPED:
            assert not copy.exists(), file
        elif file.is_file() and file.name not in ("model.safetensors", "config.json"):
            assert copy.read_bytes() == file.read_bytes(), file
    assert GenerationConfig.from_pretrained(target).eos_token_id == [3, 5]
    assert AutoTokenizer.from_pretrained(target).chat_template == AutoTokenizer.from_pretrained(model).chat_template


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_config_says_in_which_form_the_weights_are(model: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["dtype"]
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16", "own_setting": [1, 2]}))
    save(model, tmp_path / "saved", dtype)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype="auto")
    assert loaded.dtype == dtype
    expected = load_causal_lm(model).lm_head.weight + 0.1
    torch.testing.assert_close(loaded.lm_head.weight, expected.to(dtype))
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved == config | {"dtype": str(dtype).removeprefix("torch."), "own_setting": [1, 2]}


def test_weights_in_parts_are_listed_in_an_index(tiny_policy: Path, tmp_path: Path) -> None:
    """Also over a policy that was in one piece, and over one that was in more."""
    lm = load_causal_lm(tiny_policy)
    tensors = checkpoint_tensors(lm, torch.float32)
    for number in (1, 3, 2, 1):
        parts = [serialise(dict(list(tensors.items())[part::number])) for part in range(number)]
        save_policy(tiny_policy, [memoryview(part) for part in [*parts, serialise({})]], tmp_path / "saved")
        assert len(list((tmp_path / "saved").glob("*.safetensors"))) == number
        assert (tmp_path / "saved" / "model.safetensors.index.json").exists() == (number > 1)
        for name, tensor in load_causal_lm(tmp_path / "saved").state_dict().items():
            assert torch.equal(tensor, lm.state_dict()[name])


def test_a_saved_policy_can_be_saved_again_over_an_old_one(model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        save(model, tmp_path / "saved")
    save(tmp_path / "saved", tmp_path / "again")
    assert sorted(f.name for f in (tmp_path / "again").iterdir()) == sorted(
        f.name for f in (tmp_path / "saved").iterdir()
    )


def test_other_types_of_weights_leave_the_angles_of_positions_alone(tiny_policy: Path) -> None:
    lm, twin = load_causal_lm(tiny_policy), load_causal_lm(tiny_policy)
    cast_weights(lm, torch.bfloat16)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}
    frequencies = dict(twin.named_buffers())
    assert frequencies
    for name, buffer in lm.named_buffers():
        assert torch.equal(buffer, frequencies[name]), name
