"""A tiny random model of each family that people train, as transformers' config of it.

Shapes as small as vLLM's CPU kernels take them (a head dimension of 32 or more), with whatever a family has of its own:
scales, caps, experts, sinks, windows, layers of two kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

SHAPE: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
HEADS = {"head_dim": 32}


def _family(class_name: str, **own: Any) -> Callable[[int], Any]:
    def build(vocab_size: int) -> Any:
        import transformers

        return getattr(transformers, class_name)(**{**SHAPE, "vocab_size": vocab_size, **own})

    return build


_MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
_QWEN3_5 = _family(
    "Qwen3_5TextConfig",
    **HEADS,
    num_hidden_layers=4,
    linear_key_head_dim=32,
    linear_value_head_dim=32,
    linear_num_key_heads=2,
    linear_num_value_heads=2,
)
_GEMMA3 = _family(
    "Gemma3TextConfig",
    **HEADS,
    sliding_window=8,
    query_pre_attn_scalar=32,
    layer_types=["sliding_attention", "full_attention"],
)
_GEMMA4 = _family(
    "Gemma4TextConfig",
    **HEADS,
    sliding_window=8,
    hidden_size_per_layer_input=0,
    layer_types=["sliding_attention", "full_attention"],
)
_MINISTRAL3 = _family("Ministral3Config", **HEADS)
FAMILIES: Mapping[str, Callable[[int], Any]] = {
    "qwen2": _family("Qwen2Config", tie_word_embeddings=True),
    "qwen3": _family("Qwen3Config", **HEADS),
    "qwen3_5": _QWEN3_5,
    "qwen3_moe": _family("Qwen3MoeConfig", **HEADS, **_MOE, num_experts=4),
    "mixtral": _family("MixtralConfig", num_local_experts=4, num_experts_per_tok=2),
    "llama": _family("LlamaConfig"),
    "mistral": _family("MistralConfig", **HEADS, sliding_window=None),
    "ministral3": _MINISTRAL3,
    "gemma2": _family("Gemma2Config", **HEADS, query_pre_attn_scalar=32, sliding_window=8, attn_logit_softcapping=2.0),
    "gemma3": _GEMMA3,
    "gemma4": _GEMMA4,
    "phi3": _family("Phi3Config"),
    "olmo2": _family("Olmo2Config"),
    "smollm3": _family("SmolLM3Config", num_hidden_layers=4),
    "glm4": _family("Glm4Config", **HEADS),
    "granite": _family(
        "GraniteConfig",
        logits_scaling=8.0,
        embedding_multiplier=12.0,
        residual_multiplier=0.2,
        attention_multiplier=0.015625,
    ),
    "cohere": _family("CohereConfig", logit_scale=0.0625),
    "gpt_oss": _family("GptOssConfig", **HEADS, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
}


_TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Class, its config's class, family of its text, its tower for pictures, and settings: as most of these are published.
WITH_TOWERS: Mapping[str, tuple[str, str, str, Mapping[str, Any], Mapping[str, Any]]] = {
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        "gemma3",
        {"model_type": "siglip_vision_model", **_TOWER, "image_size": 28, "patch_size": 14},
        {"mm_tokens_per_image": 4},
    ),
    "gemma4": (
        "Gemma4ForConditionalGeneration",
        "Gemma4Config",
        "gemma4",
        {**_TOWER, "num_key_value_heads": 2, "head_dim": 16},
        {},
    ),
    "qwen3_5": (
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5Config",
        "qwen3_5",
        {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 16,
        },
        {},
    ),
    "ministral3": (
        "Mistral3ForConditionalGeneration",
        "Mistral3Config",
        "ministral3",
        {"model_type": "pixtral", **_TOWER, "image_size": 28, "patch_size": 14},
        {},
    ),
}


def save_with_tower(name: str, folder: Path, vocab_size: int) -> Any:
    """Writes a tiny model of `WITH_TOWERS`, as `save_pretrained` does. Returns the model."""
    import transformers

    model_class, config_class, text, tower, settings = WITH_TOWERS[name]
    inner = FAMILIES[text](vocab_size).to_dict()
    config = getattr(transformers, config_class)(text_config=inner, vision_config=dict(tower), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, model_class)(config).eval()
    model.save_pretrained(folder)
    return model


def save_family(name: str, folder: Path, vocab_size: int, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Writes the family's tiny model, as `save_pretrained` does. Returns the folder.

    Args:
        name: key of `FAMILIES`.
        folder: where.
        vocab_size: rows of the embedding.
        seed: of the weights.
        scale: of all matrices; larger ones make attention scores large enough for caps and sinks to matter.
    """
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(FAMILIES[name](vocab_size), dtype=torch.float32)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.dim() >= 2:
                    tensor.normal_(std=0.02 * scale)
                elif tensor.is_floating_point():
                    # Norms, biases, sinks and the like: each its own value, so that none can be forgotten unnoticed.
                    tensor.add_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(folder)
    return folder
