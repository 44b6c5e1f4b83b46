"""Every class that transformers lists as a causal LM, made small: its logits are its own when it is taken apart."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from proxmo_rllib.learner.own_forward import OwnForward
from proxmo_rllib.policies.attention import choose_attention

# Whatever of these a config has. Configs that demand other combinations cannot be made small without knowing them.
SMALL = (
    {"vocab_size": 200, "max_position_embeddings": 256, "n_positions": 256, "n_ctx": 256, "sliding_window": 8}
    | dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 64)
    | dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 96)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), 2)
    | dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 2)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4)
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    | {"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
    | {"head_dim": 32, "attention_head_size": 32, "v_head_dim": 32, "q_lora_rank": 16, "kv_lora_rank": 16}
    | {"qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "rotary_dim": 16}
    | dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 32)
    | dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2)
    | {"state_size": 16, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16}
    | {"mamba_expand": 2, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 200}
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
)
LARGEST = 40_000_000  # weights of a model that was made small


def small_model(config_class: type) -> Any | None:
    """The class's causal LM; None if its config cannot be made small by `SMALL`."""
    from transformers import AutoModelForCausalLM

    try:
        usual = config_class()
        config = config_class(**{key: value for key, value in SMALL.items() if hasattr(usual, key)})
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > LARGEST:
            return None
        model = AutoModelForCausalLM.from_config(config).eval()
        model(input_ids=torch.randint(200, (2, 16)), use_cache=False)
    except Exception:  # whatever a config asks for beyond these settings
        return None
    return model


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_causal_lm_gives_its_own_logits() -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.manual_seed(0)
    taken_apart, refused = [], {}
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        model = small_model(CONFIG_MAPPING[name])
        if model is None:
            continue
        choose_attention(model)
        try:
            OwnForward(model)
            taken_apart.append(name)
        except ValueError as error:
            refused[name] = str(error)
        del model
        gc.collect()
    assert not refused
    assert len(taken_apart) >= 125, f"only {len(taken_apart)} could be made small"
    print(f"{len(taken_apart)} classes of {len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}")
