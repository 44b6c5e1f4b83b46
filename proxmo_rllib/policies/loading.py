"""Loading a policy: a folder, a hub name, or an asset that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from proxmo_rllib.policies import hub

ASSETS = Path(__file__).parent / "assets"
_ASSET_PREFIX = "asset:"


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
    folder = Path(name).expanduser()
    if folder.exists():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"pretrained={name!r}: the folder has no config.json, so it is no Hugging Face model; give the folder "
                "that save_pretrained wrote (of a checkpoint: its `policy` folder)."
            )
        return str(folder.resolve())
    if name.startswith((".", "/", "~")):
        raise ValueError(f"pretrained={name!r}: there is no such folder.")
    hub.obstacle()  # without a network, what follows asks the cache alone
    return name


def load_causal_lm(pretrained: str | Path) -> Any:
    """The model in float32, in training mode without dropout surprises, attention through PyTorch's SDPA.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    source = resolve_pretrained(pretrained)
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa")
    except OSError as error:
        raise ValueError(_unreachable(pretrained, error)) from error


def load_tokenizer(pretrained: str | Path) -> Any:
    """The model's tokenizer.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = resolve_pretrained(pretrained)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(_unreachable(pretrained, error)) from error


def max_positions(pretrained: str | Path) -> int | None:
    """Tokens that the model can tell apart by position, if its config says.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoConfig

    source = resolve_pretrained(pretrained)
    try:
        config = AutoConfig.from_pretrained(source).get_text_config()
    except OSError as error:
        raise ValueError(_unreachable(pretrained, error)) from error
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def save_policy(pretrained: str | Path, weights: bytes | memoryview, folder: Path) -> None:
    """Writes a folder that transformers and vLLM load: the config and tokenizer of `pretrained` with new weights.

    Args:
        pretrained: where config and tokenizer come from.
        weights: a whole safetensors file.
        folder: made if it is not there.
    """
    from transformers import AutoConfig

    folder.mkdir(parents=True, exist_ok=True)
    source = resolve_pretrained(pretrained)
    AutoConfig.from_pretrained(source).save_pretrained(folder)
    load_tokenizer(pretrained).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(weights)


def _unreachable(pretrained: str | Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if (obstacle := hub.obstacle()) is not None:
        first = f"it is not in the cache, and nothing can be downloaded ({obstacle})."
    return (
        f"pretrained={str(pretrained)!r} cannot be loaded: {first} Give a folder that save_pretrained wrote, or a hub "
        "name while the hub can be reached."
    )
