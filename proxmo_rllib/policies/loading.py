"""Loading a policy: a folder, a hub name, or an asset that ships with the package.

A model's own code is never run: `trust_remote_code` is said to be off, since transformers asks on a terminal where it
is left unsaid.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from proxmo_rllib.policies import hub
from proxmo_rllib.policies.attention import choose_attention
from proxmo_rllib.policies.model_folder import (
    INDEX,
    SINGLE,
    copy_all_but_weights,
    files_that_count,
    local_model,
    read_model_folder,
)

ASSETS = Path(__file__).parent / "assets"
_ASSET_PREFIX = "asset:"
# Of several files of weights, as transformers names them.
_SHARD = "model-{:05d}-of-{:05d}.safetensors"


def resolve_pretrained(pretrained: str | Path) -> str:
    """Path or hub name that transformers and vLLM load from.

    Args:
        pretrained: a folder, a hub name, or `asset:NAME`.

    Raises:
        ValueError: there is no such asset or folder.
    """
    name = str(pretrained)
    if name.startswith(_ASSET_PREFIX):
        folder = ASSETS / name.removeprefix(_ASSET_PREFIX)
        if not (folder / "config.json").is_file():
            known = sorted(path.parent.name for path in ASSETS.glob("*/config.json"))
            raise ValueError(f"pretrained={name!r}: the package ships no such asset; it has {known}.")
        return str(folder)
    folder = Path(os.path.expanduser(name))
    if os.path.exists(folder):
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"pretrained={name!r}: the folder has no config.json, so it is no Hugging Face model; give the folder "
                "that save_pretrained wrote (of a checkpoint: its `policy` folder)."
            )
        return str(folder.resolve())
    if name.startswith((".", "/", "~")):
        raise ValueError(
            f"pretrained={name!r}: there is no such folder; save a model there with save_pretrained, or write one of a "
            f"GGUF file with `proxmo from-gguf FILE --output {name}`."
        )
    hub.obstacle()  # without a network, what follows asks the cache alone
    return name


def load_causal_lm(pretrained: str | Path) -> Any:
    """The model in float32, in evaluation mode, with the fastest attention that computes what the model asks for.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    source = resolve_pretrained(pretrained)
    with tempfile.TemporaryDirectory(prefix="proxmo_model_") as scratch:
        # In the folder of an adapter transformers would load that too.
        folder = source
        if (Path(source) / "adapter_config.json").exists():
            folder = str(files_that_count(read_model_folder(Path(source)), Path(scratch)))
        try:
            lm = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        except OSError as error:
            raise ValueError(_unreachable(pretrained, error)) from error
    lm.config._name_or_path = source
    if getattr(lm, "peft_config", None):
        raise ValueError(
            f"pretrained={str(pretrained)!r}: there is an adapter beside the model, which engines would not read. "
            "Download the model without its adapter_config.json, or merge the two, and give that folder."
        )
    choose_attention(lm)
    return lm.eval()


def cast_weights(lm: Any, dtype: torch.dtype) -> None:
    """Turns what a checkpoint holds of a model into another type, in place.

    The frequencies of rotary embeddings are not in it, and keep their digits: `lm.to(dtype)` would take them, and turn
    the tokens of a long sequence by the wrong angle.
    """
    for tensor in lm.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def load_tokenizer(pretrained: str | Path) -> Any:
    """The model's tokenizer.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = resolve_pretrained(pretrained)
    try:
        # Mistral's own backend, which transformers takes where it finds a tekken.json, has neither a chat template nor
        # the tokenizer.json that prompts are made with.
        return AutoTokenizer.from_pretrained(source, mistral_format=False, trust_remote_code=False)
    except Exception as error:  # it raises whatever a wrong value in its files leads to
        raise ValueError(_unreachable(pretrained, error)) from error


def max_positions(pretrained: str | Path) -> int | None:
    """Tokens that the model can tell apart by position, if its config says.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoConfig

    source = resolve_pretrained(pretrained)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False).get_text_config()
    except OSError as error:
        raise ValueError(_unreachable(pretrained, error)) from error
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def save_policy(pretrained: str | Path, weights: Sequence[bytes | memoryview], folder: Path) -> None:
    """Writes a folder that transformers and vLLM load: the files of `pretrained` as they are, with new weights.

    Whoever serves it then stops at the same tokens, by the same template, under the same licence.

    Args:
        pretrained: where all but the weights comes from.
        weights: whole safetensors files, each with other tensors; those of several are listed in an index.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy_all_but_weights(local_model(resolve_pretrained(pretrained)), folder)
    files = [(part, header) for part in weights if (header := _header(part))]
    names = [SINGLE] if len(files) == 1 else [_SHARD.format(n + 1, len(files)) for n in range(len(files))]
    for old in (*folder.glob("model-*.safetensors"), folder / SINGLE, folder / INDEX):
        old.unlink(missing_ok=True)  # of a policy that was here before, perhaps in other pieces
    for name, (part, _) in zip(names, files, strict=True):
        (folder / name).write_bytes(part)
    entries = {tensor: entry for _, header in files for tensor, entry in header.items()}
    if len(files) > 1:
        listed = {tensor: name for name, (_, header) in zip(names, files, strict=True) for tensor in header}
        size = sum(stop - start for start, stop in (entry["data_offsets"] for entry in entries.values()))
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(listed.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[_first_dtype(entries)]
    (folder / "config.json").write_text(json.dumps(_with_dtype(config, dtype), indent=2) + "\n", encoding="utf-8")


def _header(weights: bytes | memoryview) -> dict[str, Any]:
    """What a safetensors file says of its tensors, by their names."""
    length = int.from_bytes(weights[:8], "little")
    entries = json.loads(bytes(weights[8 : 8 + length]))
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def _first_dtype(entries: Mapping[str, Any]) -> str:
    """Of the first floating-point tensor, as safetensors names it."""
    return next(str(entry["dtype"]) for entry in entries.values() if "F" in entry["dtype"])


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json that says in which form the weights are, in the nested ones too."""
    changed = {key: _with_dtype(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    if "model_type" in changed:
        changed.pop("torch_dtype", None)  # the setting's older name
        changed["dtype"] = dtype
    return changed


def _unreachable(pretrained: str | Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if (obstacle := hub.obstacle()) is not None:
        first = f"it is not in the cache, and nothing can be downloaded ({obstacle})."
    return (
        f"pretrained={str(pretrained)!r} cannot be loaded: {first} Give a folder that save_pretrained wrote, or a hub "
        "name while the hub can be reached."
    )
