"""The model behind a word, and what is known of how it was trained, as far as serving it and talking to it go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.inference.engine import DTYPES
from proxmo_rllib.inference.support import unsupported_by_vllm
from proxmo_rllib.policies.loading import max_positions
from proxmo_rllib.policies.model_folder import local_model, read_model_folder
from proxmo_rllib.serving.sizes import DEFAULT_LENGTH

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy to serve or to talk to.

    Attributes:
        folder: of the model.
        dtype: that its weights are computed in.
        max_model_len: tokens of prompt and reply together.
        system: message that opened every conversation of the training, if there was one.
        template_kwargs: variables of the chat template.
        trained_on: name of the environment; empty if it is not known.
    """

    folder: Path
    dtype: str
    max_model_len: int
    system: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""


def describe_policy(
    pretrained: str, config: ProxMOConfig | None, *, dtype: str | None, max_model_len: int | None
) -> Policy:
    """The policy with the checkpoint's settings, or the model's own where there is no checkpoint.

    Args:
        pretrained: folder or hub name of the model.
        config: of the checkpoint, if there is one.
        dtype: in the place of the checkpoint's.
        max_model_len: in the place of the checkpoint's.

    Raises:
        ValueError: the folder is no whole model, or it has fewer positions than that; says what to do.
    """
    folder = read_model_folder(local_model(pretrained)).path
    positions = max_positions(folder)
    if max_model_len is None:
        usual = DEFAULT_LENGTH if config is None else int(config.max_model_len)
        max_model_len = min(usual, positions or usual)
    elif positions is not None and max_model_len > positions:
        raise ValueError(f"--max-model-len {max_model_len}: {pretrained} has only {positions} positions; say fewer.")
    if config is None:
        return Policy(folder, dtype or _own_dtype(folder), max_model_len)
    from proxmo_rllib.rollouts.environments import env_name

    return Policy(
        folder,
        dtype or config.dtype,
        max_model_len,
        config.system_message,
        dict(config.chat_template_kwargs or {}),
        env_name(config.env) if config.env else "",
    )


def refuse_what_vllm_cannot_run(policy: Policy, config: Any) -> None:
    """Before anything starts.

    Args:
        policy: which.
        config: of transformers.

    Raises:
        ValueError: vLLM cannot run it; says why.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    size = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else None)
    reason = unsupported_by_vllm(config.architectures or (), [size] if size else [])
    if reason is not None:
        raise ValueError(f"{policy.folder}: {reason}. `proxmo chat` talks to it without vLLM.")


def rank_of_adapter(folder: Path) -> int:
    """The rank of an adapter in PEFT's format.

    Raises:
        ValueError: the folder is none.
    """
    file = folder / _ADAPTER
    try:
        rank = json.loads(file.read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"--adapter {folder}: it has no {_ADAPTER} that can be read ({error}); give the folder `adapter` of a "
            "checkpoint, or one that PEFT wrote."
        ) from error
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"--adapter {folder}: its {_ADAPTER} says r={rank!r}; it must be a whole number above 0.")
    return rank


def refuse_adapter_alone(word: str) -> None:
    """A folder with an adapter and no model is no policy.

    Raises:
        ValueError: it is one; says what to give.
    """
    folder = Path(word).expanduser()
    if (folder / _ADAPTER).is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{word}: it is an adapter without its model. Give its checkpoint, whose folder `policy` has both merged, "
            f"or the model it belongs to: proxmo serve MODEL --adapter {word}."
        )


def _own_dtype(folder: Path) -> str:
    """As the model's config.json has it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = str(config.get("dtype") or config.get("torch_dtype") or "")
    return said if said in DTYPES else "float32"
