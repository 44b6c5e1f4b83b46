"""What is wrong with a model's folder is said before anything starts: the file, the value, the remedy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.inference.support import CPU_HEAD_DIMS, NEEDS_TORCHVISION, vllm_architectures
from proxmo_rllib.inference.weights import manifest_of_checkpoint
from proxmo_rllib.model_checks import check_model
from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.policies.model_folder import files_that_count, read_model_folder
from tests.model_families import FAMILIES, save_family


@pytest.fixture
def folder(tiny_policy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_policy, tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> list[str]:
    """Splits the weights into two files with an index. Returns the tensors of the second."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    listed = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        listed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    (folder / "model.safetensors").unlink()
    return parts[1]


SECOND = "model-00002-of-00002.safetensors"


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def other_heads(folder: Path) -> None:
    """A model whose attention heads vLLM's CPU kernels cannot do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=tokens, hidden_size=48, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def tie(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)


def half_an_index(folder: Path) -> None:
    for name in shard(folder)[:1]:
        tensors = load_file(folder / SECOND)
        del tensors[name]
        save_file(tensors, folder / SECOND)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"the folder has no config\.json"),
    "a config that is cut short": (lambda f: cut(f / "config.json", 40), r"config\.json is damaged: it cannot be read"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"has neither model\.safetensors nor .*save_pretrained",
    ),
    "weights of PyTorch alone": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"there is pytorch_model\.bin\. Load the model with transformers",
    ),
    "half a file": (lambda f: cut(f / "model.safetensors", 50_000), r"model\.safetensors is damaged: it has 50,000 of"),
    "a pointer of Git LFS": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        r"git lfs pull",
    ),
    "a shard that is missing": (
        lambda f: (shard(f), (f / SECOND).unlink()),
        rf"{SECOND} is missing, and model\.safetensors\.index\.json lists it",
    ),
    "half a shard": (lambda f: (shard(f), cut(f / SECOND, 20_000)), rf"{SECOND} is damaged: it has 20,000 of"),
    "a tensor that the index puts elsewhere": (half_an_index, r"says that .* is in it \(and 0 more\), and it is not"),
    "a tensor that is missing": (
        lambda f: edit_weights(f, lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
        r"model\.layers\.1\.mlp\.up_proj\.weight is missing \(and 0 more\)",
    ),
    "a head that is missing": (
        lambda f: edit_weights(f, lambda t: t.pop("lm_head.weight")),
        r"lm_head\.weight is missing .*\"tie_word_embeddings\": true in config\.json",
    ),
    "a tensor of another shape": (
        lambda f: edit_config(f, intermediate_size=96),
        r"has shape \[.*\], and by config\.json it has",
    ),
    "a head that the config does not mention": (tie, r"tie_word_embeddings is true, but lm_head\.weight is not"),
    "a tokenizer that is too large": (
        lambda f: (
            edit_weights(f, lambda t: t.update({k: v[:300].clone() for k, v in t.items() if v.shape[0] == 560})),
            edit_config(f, vocab_size=300, pad_token_id=0, eos_token_id=1),
        ),
        r"its tokenizer has the token .* with the id \d+, and the model's embedding has 300 rows",
    ),
    "quantised weights": (
        lambda f: edit_config(f, quantization_config={"quant_method": "mxfp4"}),
        r"quantization_config says 'mxfp4', and quantised weights cannot be trained",
    ),
    "heads of another size": (
        other_heads,
        r"its attention heads have 24 dimensions, and vLLM's CPU kernels take 32, 64",
    ),
    "a family that vLLM has not": (
        lambda f: edit_config(f, architectures=["NobodysForCausalLM"]),
        r"vLLM has no NobodysForCausalLM\. Or set engine='transformers'",
    ),
    "a family that nobody has": (
        lambda f: edit_config(f, model_type="nobodys"),
        r"model_type='nobodys' cannot be read by transformers",
    ),
    "an encoder": (
        lambda f: (f / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5Model"]})),
        r"transformers makes no causal language model of model_type='t5'",
    ),
}


@pytest.mark.parametrize("fault", list(WRONG))
def test_what_is_wrong_with_a_folder_is_said(folder: Path, fault: str) -> None:
    damage, message = WRONG[fault]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        check_model(folder, "vllm")


def spoil_nothing(folder: Path) -> None:
    return


RIGHT: dict[str, Callable[[Path], Any]] = {
    "as it was saved": spoil_nothing,
    "in shards": shard,
    "a second copy of the weights": lambda f: save_file({"layers.0.wq": torch.ones(2)}, f / "consolidated.safetensors"),
    "an adapter beside them": lambda f: (
        save_file({"base_model.model.lora_A": torch.ones(2)}, f / "adapter_model.safetensors"),
        (f / "adapter_config.json").write_text("{}"),
    ),
    "an old shard beside them": lambda f: save_file({"x": torch.ones(2)}, f / "model-00001-of-00009.safetensors"),
    "frequencies of old times": lambda f: edit_weights(
        f, lambda t: t.update({f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(16) for n in range(2)})
    ),
    "a tied head, twice": lambda f: (
        tie(f),
        edit_weights(f, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})),
    ),
}


@pytest.mark.parametrize("case", list(RIGHT))
def test_what_does_not_count_is_left_aside(folder: Path, tmp_path: Path, case: str) -> None:
    """And what the learner exports then is what an engine expects, out of a folder with that alone in it."""
    RIGHT[case](folder)
    assert "LlamaForCausalLM" in (check_model(folder, "vllm") or "")
    exported = {name: tuple(t.shape) for name, t in checkpoint_tensors(load_causal_lm(folder), torch.float32).items()}
    assert exported == manifest_of_checkpoint(folder)
    (tmp_path / "scratch").mkdir()
    model = read_model_folder(folder)
    served = files_that_count(model, tmp_path / "scratch")
    assert sorted(f.name for f in served.glob("*.safetensors")) == sorted(f.name for f in model.files)
    assert not (served / "adapter_config.json").exists()
    assert load_causal_lm(served).config.vocab_size == load_causal_lm(folder).config.vocab_size


def test_a_model_that_cannot_be_divided_is_refused_with_what_divides_it(folder: Path) -> None:
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    assert check_model(folder, "vllm", tensor_parallel_size=heads)
    with pytest.raises(ValueError, match=rf"tensor_parallel_size=7 .*it has {heads} attention heads.*does: 1, "):
        check_model(folder, "vllm", tensor_parallel_size=7)


def test_special_tokens_beyond_the_embedding_are_allowed(folder: Path) -> None:
    """Gemma 3 has one for pictures; no text has it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder)
    assert check_model(folder, "vllm")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_pass_or_are_refused_with_what_to_use_instead(tiny_policy: Path, tmp_path: Path, family: str) -> None:
    rows = json.loads((tiny_policy / "config.json").read_text())["vocab_size"]
    folder = save_family(family, tmp_path, rows)
    for file in tiny_policy.glob("*token*"):
        shutil.copy(file, folder)
    assert check_model(folder, "transformers")
    if family == "qwen3_5":
        with pytest.raises(ValueError, match=r"imports torchvision, which is not installed.*engine='transformers'"):
            check_model(folder, "vllm")
        return
    assert check_model(folder, "vllm")


@pytest.mark.slow
def test_what_is_known_of_vllm_is_what_the_installed_one_says() -> None:
    from vllm.model_executor.models import ModelRegistry
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert tuple(CPUAttentionBackend.get_supported_head_sizes()) == CPU_HEAD_DIMS
    assert vllm_architectures() == set(ModelRegistry.get_supported_archs())
    assert set(NEEDS_TORCHVISION) <= vllm_architectures()


def test_an_adapter_beside_a_model_changes_nothing(folder: Path) -> None:
    """Transformers would put it into the model, and the engine would not have it."""
    ids = torch.arange(20)[None]
    expected = load_causal_lm(folder)(ids).logits
    name = "base_model.model.model.layers.0.mlp.up_proj"
    out, into = load_file(folder / "model.safetensors")[f"{name.removeprefix('base_model.model.')}.weight"].shape
    tensors = {f"{name}.lora_A.weight": torch.ones(2, into), f"{name}.lora_B.weight": torch.ones(out, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["up_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    lm = load_causal_lm(folder)
    assert torch.equal(lm(ids).logits, expected)
    assert lm.config.name_or_path == str(folder)
    (folder / "adapter_model.safetensors").unlink()
    assert torch.equal(load_causal_lm(folder)(ids).logits, expected)


def test_adapters_are_checked_before_anything_starts(folder: Path) -> None:
    found = check_model(folder, "vllm", LoRA(rank=4)) or ""
    assert re.search(r"trained: [\d,]+ weights of adapters at 14 layers \(down_proj, gate_proj, k_proj,", found)
    wrong = {
        "target_modules='q_prj': LlamaForCausalLM has no module of that name; did you mean 'q_proj'": LoRA(
            target_modules=("q_prj",)
        ),
        "lm_head is the LM head, which has no adapter here; its linear layers are down_proj": LoRA(
            target_modules=("lm_head",)
        ),
        "is a LlamaMLP and no linear layer": LoRA(target_modules=("mlp",)),
        r"rank=100 is more than .* \[64, 64\] has; take a rank of at most 64": LoRA(rank=100),
    }
    for message, lora in wrong.items():
        for engine in ("vllm", "transformers"):
            with pytest.raises(ValueError, match=message) as caught:
                check_model(folder, engine, lora)
            assert str(folder) in str(caught.value)


def test_experts_that_are_one_tensor_are_refused_in_words(tiny_policy: Path, tmp_path: Path) -> None:
    rows = json.loads((tiny_policy / "config.json").read_text())["vocab_size"]
    folder = save_family("qwen3_moe", tmp_path, rows)
    for file in tiny_policy.glob("*token*"):
        shutil.copy(file, folder)
    with pytest.raises(ValueError, match=r"down_proj \[4, 64, 32\] is one tensor of all experts.*layers are k_proj"):
        check_model(folder, "transformers", LoRA(rank=2, target_modules=("down_proj",)))
    assert "at 8 layers (k_proj, o_proj, q_proj, v_proj)" in (check_model(folder, "transformers", LoRA(rank=2)) or "")


def test_a_family_whose_adapters_vllm_does_not_serve_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot serve lora=.*largest rank is 512"):
        check_model(wide(folder), "vllm", LoRA(rank=513))
    assert check_model(folder, "transformers", LoRA(rank=513))


def wide(folder: Path) -> Path:
    """Gives the folder a model whose every layer is wider than vLLM's largest rank."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 520, "intermediate_size": 520, "num_attention_heads": 8, "head_dim": 80}
    LlamaForCausalLM(LlamaConfig(vocab_size=tokens, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    return folder
