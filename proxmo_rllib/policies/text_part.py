"""The text part of a model that also sees or hears, as a model of its own.

Gemma 3 and 4, Qwen3.5, Ministral 3 and others are published with a tower for pictures around a causal LM. Agents here
read text: what is trained, served and saved is the causal LM, under its own config and its own names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proxmo_rllib.policies.checkpoint_names import compare_names, model_without_weights
from proxmo_rllib.policies.model_folder import INDEX, SINGLE, copy_all_but_weights, read_model_folder

# How the tensors of the text part begin in the whole model, and in a model of their own.
_PREFIXES = (("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.", ""))
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def has_other_parts(config: Any) -> bool:
    """Whether a config of transformers is of a model with a text part in it."""
    return config.get_text_config() is not config


def write_text_part(source: Path, target: Path) -> str:
    """Writes the text part of a model, a file of weights at a time.

    Args:
        source: folder of the whole model.
        target: folder to write; made, and must not be there.

    Returns:
        The class of the text part.

    Raises:
        ValueError: the model has no other part, or its text part is not whole.
        FileExistsError: `target` is there.
    """
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig

    folder = read_model_folder(source)
    whole = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if not has_other_parts(whole):
        raise ValueError(f"{source}: model_type={whole.model_type!r} is all text; train it as it is.")
    config = whole.get_text_config()
    for name in _TOKENS:
        if getattr(config, name, None) is None:
            setattr(config, name, getattr(whole, name, None))
    renamed = {name: _own_name(name) for name in folder.tensors}
    if "lm_head.weight" not in renamed.values():
        config.tie_word_embeddings = config.tie_word_embeddings or whole.tie_word_embeddings
    lm = model_without_weights(config)
    names = compare_names(renamed.values(), lm)
    if names.missing:
        raise ValueError(
            f"{source}: {names.missing[0]} of {type(lm).__name__} is not in its weights (and {len(names.missing) - 1} "
            "more); this model names its text part in a way that is not known here."
        )
    config.architectures = [type(lm).__name__]
    target.mkdir(parents=True)
    copy_all_but_weights(source, target)
    config.save_pretrained(target)
    listed: dict[str, str] = {}
    for file in folder.files:
        tensors = {renamed[n]: t for n, t in load_file(file).items() if renamed[n] in names.part_of - names.tied.keys()}
        if tensors:
            save_file(tensors, target / file.name, metadata={"format": "pt"})
            listed |= dict.fromkeys(tensors, file.name)
    if set(listed.values()) != {SINGLE}:
        (target / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": listed}, indent=2) + "\n")
    return type(lm).__name__


def _own_name(name: str) -> str:
    for prefix, own in _PREFIXES:
        if name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name
