"""A tiny causal LM for CPUs and tests: a tokenizer trained on environment text, and a Qwen2 of a million weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# One token opens each message, one ends the reply: the fewest a conversation can do with.
USER, SYSTEM, ASSISTANT, END, PAD = "<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinySize:
    """Shape of the model. vLLM's CPU kernels need a head dimension of 32 or more."""

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 384
    max_positions: int = 2048
    tied: bool = True


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level tokenizer that makes one token of nearly every word in the texts, and knows every other text too.

    Args:
        texts: what environments and agents say.
        vocab_size: tokens at most; 256 of them are single bytes.

    Returns:
        A Hugging Face fast tokenizer with a chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    wrapped.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT, SYSTEM]})
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_tiny_policy(folder: Path, tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> None:
    """Writes a randomly initialised model with its tokenizer.

    Args:
        folder: where; made if it is not there.
        tokenizer: of `train_tokenizer`.
        size: shape of the model.
        seed: of the weights.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = size or TinySize()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_heads,
        max_position_embeddings=size.max_positions,
        rope_theta=10_000.0,
        tie_word_embeddings=size.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
