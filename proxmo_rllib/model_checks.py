"""What can be found wrong with a model before anything starts: by its files' headers, its config and its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.inference.support import (
    quantisation,
    unadaptable_by_vllm,
    undividable_by_vllm,
    unsupported_by_vllm,
)
from proxmo_rllib.policies.adapters import adapter_manifest, describe, last_names, layer_of
from proxmo_rllib.policies.checkpoint_names import Comparison, compare_names, model_without_weights
from proxmo_rllib.policies.loading import load_tokenizer, resolve_pretrained
from proxmo_rllib.policies.model_folder import ModelFolder, cached_model, read_model_folder
from proxmo_rllib.policies.text_part import has_other_parts

_ROWS = 4096  # of two matrices, compared at once


def check_model(
    pretrained: str | Path, engine: str, lora: LoRA | None = None, tensor_parallel_size: int = 1
) -> str | None:
    """Checks a model that lies on this machine.

    Args:
        pretrained: a folder, a hub name or `asset:NAME`.
        engine: "vllm" or "transformers".
        lora: adapters that are to be trained in it.
        tensor_parallel_size: processes among which each engine divides it.

    Returns:
        What was found, in words; None if the model is on the hub and has not been fetched.

    Raises:
        ValueError: it cannot be trained; names the file, the value and the remedy.
    """
    path = cached_model(resolve_pretrained(pretrained))
    if path is None:
        return None
    folder = read_model_folder(path)
    _refuse_quantised(folder)
    config = _config(folder)
    _refuse_other_parts(folder, config)
    lm = _without_weights(folder, config)
    names = compare_names(folder.tensors, lm)
    _check_tensors(folder, names)
    _check_ties(folder, names)
    _check_vocabulary(folder, lm)
    _check_engine(folder, lm, engine, tensor_parallel_size)
    adapters = "" if lora is None else f"; {_check_adapters(folder, lm, engine, lora)}"
    number = sum(parameter.numel() for parameter in lm.parameters())
    ignored = f"; not read: {', '.join(file.name for file in folder.ignored)}" if folder.ignored else ""
    return f"{type(lm).__name__}, {number:,} weights in {len(folder.files)} files{ignored}{adapters}"


def _refuse_quantised(folder: ModelFolder) -> None:
    method = quantisation(folder.config)
    if method:
        raise ValueError(
            f"{folder.path / 'config.json'}: quantization_config says {method!r}, and quantised weights cannot be "
            "trained; take the model in bfloat16, or load it with transformers, dequantise it and save it."
        )


def _config(folder: ModelFolder) -> Any:
    from transformers import AutoConfig, __version__

    named = folder.config.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ValueError(f"{folder.path / 'config.json'}: architectures={named!r:.80} is no list of names; mend it.")
    try:
        return AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise ValueError(
            f"{folder.path / 'config.json'}: model_type={folder.config.get('model_type')!r} cannot be read by "
            f"transformers {__version__}: {_first_line(error)}"
        ) from error


def _refuse_other_parts(folder: ModelFolder, config: Any) -> None:
    if has_other_parts(config):
        raise ValueError(
            f"{folder.path / 'config.json'}: model_type={config.model_type!r} is of a model that also sees or hears, "
            f"and agents here read text. Write its text part, and train that: proxmo text-part {folder.path} --output "
            "FOLDER"
        )


def _without_weights(folder: ModelFolder, config: Any) -> Any:
    try:
        return model_without_weights(config)
    except Exception as error:  # likewise
        raise ValueError(
            f"{folder.path / 'config.json'}: transformers makes no causal language model of model_type="
            f"{config.model_type!r} ({_first_line(error)}). Take one whose architecture is named ...ForCausalLM, or "
            "mend the setting that it names."
        ) from error


def _check_tensors(folder: ModelFolder, names: Comparison) -> None:
    where = folder.path if len(folder.files) != 1 else folder.files[0]
    if names.missing:
        tied = ""
        if len(names.missing) == 1 and "tie_word_embeddings" in str(folder.config):
            tied = 'If it is the embedding, say "tie_word_embeddings": true in config.json. '
        raise ValueError(
            f"{where}: {names.missing[0]} is missing (and {len(names.missing) - 1} more), and {_class(folder)} needs "
            f"it. {tied}Otherwise download or save the model again; transformers would make it up."
        )
    for name, expected in names.shapes.items():
        if folder.tensors[name] != expected:
            raise ValueError(
                f"{where}: {name} has shape {list(folder.tensors[name])}, and by config.json it has {list(expected)}; "
                "the two are of different models."
            )


def _check_ties(folder: ModelFolder, names: Comparison) -> None:
    for name, origin in names.tied.items():
        if not all(torch.equal(*pair) for pair in _row_pairs(folder, name, origin)):
            raise ValueError(
                f"{folder.path / 'config.json'}: tie_word_embeddings is true, but {name} is not {origin}: transformers "
                'and vLLM would compute different models. Say "tie_word_embeddings": false if it was trained apart, '
                f"else remove {name} from the weights."
            )


def _row_pairs(folder: ModelFolder, one: str, other: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from safetensors import safe_open

    def slices(name: str) -> Any:
        for file in folder.files:
            with safe_open(file, framework="pt") as opened:
                if name in opened.keys():  # noqa: SIM118 (no mapping)
                    return opened.get_slice(name)
        raise KeyError(name)

    left, right = slices(one), slices(other)
    for start in range(0, left.get_shape()[0], _ROWS):
        yield left[start : start + _ROWS], right[start : start + _ROWS]


def _check_vocabulary(folder: ModelFolder, lm: Any) -> None:
    rows = int(lm.get_input_embeddings().weight.shape[0])
    tokenizer = load_tokenizer(folder.path)
    # Special tokens beyond the embedding (Gemma 3's for pictures) are in no text.
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    number, token = max((n, t) for t, n in tokenizer.get_vocab().items() if n not in special)
    if number >= rows:
        raise ValueError(
            f"{folder.path}: its tokenizer has the token {token!r} with the id {number}, and the model's embedding has "
            f"{rows} rows. The two do not belong together; take the model's own tokenizer, or resize the embedding."
        )


def _check_engine(folder: ModelFolder, lm: Any, engine: str, parts: int) -> None:
    if engine == "transformers":
        return  # it runs what transformers runs
    sizes = {module.head_dim for module in lm.modules() if isinstance(getattr(module, "head_dim", None), int)}
    reason = unsupported_by_vllm(folder.config.get("architectures") or (), sorted(sizes))
    if reason:
        raise ValueError(
            f"{folder.path}: engine='vllm' cannot run it: {reason}. Or set engine='transformers', which is slower."
        )
    reason = undividable_by_vllm(lm.config, parts)
    if reason:
        possible = ", ".join(str(n) for n in range(1, parts) if undividable_by_vllm(lm.config, n) is None)
        raise ValueError(
            f"{folder.path}: tensor_parallel_size={parts} does not divide it: {reason}. Set one that does: {possible}."
        )


def _check_adapters(folder: ModelFolder, lm: Any, engine: str, lora: LoRA) -> str:
    """What is trained, in words."""
    try:
        shapes = adapter_manifest(lm, lora)
    except ValueError as error:
        raise ValueError(f"{folder.path}: {error}") from None
    if engine == "vllm":
        reason = unadaptable_by_vllm(folder.config.get("architectures") or (), lora.rank)
        if reason:
            raise ValueError(
                f"{folder.path}: engine='vllm' cannot serve lora={describe(lora)}: {reason}. Or set "
                "engine='transformers', which is slower."
            )
    layers = [layer_of(name) for name in shapes]
    number = sum(math.prod(shape) for shape in shapes.values())
    return f"trained: {number:,} weights of adapters at {len(layers) // 2} layers ({', '.join(last_names(layers))})"


def _class(folder: ModelFolder) -> str:
    return ", ".join(folder.config.get("architectures") or ()) or str(folder.config.get("model_type"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
