"""A model that is filled from its files a tensor at a time is the model that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.policies.streaming import allocate, empty_causal_lm, fill
from tests.model_families import FAMILIES, save_family

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_bit_for_bit(family: str, tmp_path: Path):
    """Parameters, buffers that no file holds, what is tied; and back into the checkpoint's form."""
    save_family(family, tmp_path, 200, scale=5.0)
    lm, plan = empty_causal_lm(tmp_path)
    assert all(parameter.is_meta for parameter in lm.parameters())
    allocate(lm, CPU, CPU)
    fill(lm, plan)
    loaded = load_causal_lm(tmp_path)
    for kind in ("named_parameters", "named_buffers"):
        expected = dict(getattr(loaded, kind)(remove_duplicate=False))
        given = dict(getattr(lm, kind)(remove_duplicate=False))
        assert given.keys() == expected.keys()
        for name, tensor in expected.items():
            assert given[name].dtype == tensor.dtype, name
            assert torch.equal(given[name], tensor), name
    assert len(list(lm.parameters())) == len(list(loaded.parameters()))
    saved, resaved = checkpoint_tensors(loaded, torch.float32), checkpoint_tensors(lm, torch.float32)
    assert saved.keys() == resaved.keys()
    assert all(torch.equal(resaved[name], tensor) for name, tensor in saved.items())


def test_files_in_bfloat16_and_in_several_pieces(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    save_family("llama", tmp_path / "whole", 200)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.bfloat16)
    lm.save_pretrained(tmp_path / "pieces", max_shard_size="30KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 2
    filled, plan = empty_causal_lm(tmp_path / "pieces")
    allocate(filled, CPU, CPU)
    fill(filled, plan)
    for name, tensor in load_causal_lm(tmp_path / "pieces").state_dict().items():
        assert torch.equal(filled.state_dict()[name], tensor)
        assert filled.state_dict()[name].dtype == torch.float32


def test_what_the_files_lack_is_named(tmp_path: Path):
    save_family("llama", tmp_path, 200)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    lm, plan = empty_causal_lm(tmp_path)
    allocate(lm, CPU, CPU)
    with pytest.raises(ValueError, match=r"model\.layers\.2\..* is missing in its files"):
        fill(lm, plan)
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    lm, plan = empty_causal_lm(tmp_path)
    allocate(lm, CPU, CPU)
    with pytest.raises(ValueError, match="has shape"):
        fill(lm, plan)
