"""A tiny causal LM for CPUs and tests: a tokenizer trained on environment text, and a Llama of a million weights."""

from __future__ import annotations

import re
import string
from collections import Counter
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
# Nothing says this.
_UNKNOWN = "\x00unknown\x00"

# A piece of fewer episodes is no token of its own.
_MIN_COUNT = 3


@dataclass(frozen=True, slots=True)
class TinySize:
    """Shape of the model. vLLM's CPU kernels need a head dimension of 32 or more."""

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 384
    max_positions: int = 2048
    tied: bool = False


def train_tokenizer(episodes: Iterable[Iterable[str]], vocab_size: int, *, words_only: bool = False) -> Any:
    """A tokenizer whose tokens are what the episodes consist of, and that knows every other text too, byte by byte.

    A tiny model on a CPU pays for every token, and has no depth to spend on spelling. So a numbered name
    (" drawer 1") is one token, a stretch between names that recurs (". On the", ", and a") is one token, and so is a
    word. A text is cut into the fewest tokens; without loss, whatever it holds.

    Args:
        episodes: what environment and agent say in each. A piece counts once an episode: what one goal alone says, on
            page after page, is no token.
        vocab_size: tokens at most; 256 of them are bytes and a few are special.
        words_only: no token is more than one word, number or mark. Texts are longer; but what a task composes anew,
            " 2 blue wool" of " 2", " blue" and " wool", is read and said as composed.

    Returns:
        A Hugging Face fast tokenizer with a chat template.
    """
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, USER, ASSISTANT, SYSTEM]
    # Bytes only stand in for what no piece covers. Printable characters are pieces, so that a text that looks like
    # the name of a byte ("<0x41>") is cheaper spelt out.
    fallback = [_UNKNOWN, *(f"<0x{byte:02X}>" for byte in range(256))]
    characters = [*string.printable]
    count = vocab_size - len(fallback) - len(characters) - len(special)
    pieces = _frequent_pieces(episodes, count, set(characters), words_only)
    # One price a token makes the cheapest cut the shortest; the tiny slope settles ties in favour of frequent pieces.
    vocab = [(piece, -100.0) for piece in fallback]
    vocab += [(piece, -1.0 - 1e-6 * rank) for rank, piece in enumerate([*pieces, *characters])]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=_UNKNOWN, clean_up_tokenization_spaces=False
    )
    # Added beside the pieces: a piece would be found in plain text too.
    wrapped.add_special_tokens({"pad_token": PAD, "eos_token": END})
    wrapped.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT, SYSTEM]})
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


# A name with a number, or a separator such as " [SEP]".
_NAME = re.compile(r"( ?[a-z]+ \d+| ?\[[A-Z]+\])")
_WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+")


def _frequent_pieces(
    episodes: Iterable[Iterable[str]], count: int, taken: set[str], words_only: bool = False
) -> list[str]:
    """The names, stretches between names, and words of most episodes; or the words alone."""
    seen: Counter[str] = Counter()
    for texts in episodes:
        pieces: set[str] = set()
        for part in {part for text in texts for part in ((text,) if words_only else _NAME.split(text)) if part}:
            if not words_only:
                pieces.add(part)
            # Words also where a stretch holds them: a stretch that is too rare falls apart into them.
            pieces.update(_WORD.findall(part))
        seen.update(pieces)
    kept = [(n, piece) for piece, n in seen.items() if n >= _MIN_COUNT and piece not in taken]
    ranked = sorted(kept, key=lambda item: (-item[0], item[1]))
    return [piece for _, piece in ranked[:count]]


@torch.no_grad()
def _initialise(model: Any, tokenizer: Any) -> None:
    """Weights that a narrow model learns from soon.

    The usual standard deviation of 0.02 is meant for wide layers, and costs a narrow one updates. A token's vector, in
    the embedding and in the head, begins as the sum of its words' vectors: that " mug 2" is a mug need not be learnt,
    and copying a name that was read before is found sooner.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            residual = name.endswith(("o_proj", "down_proj"))
            torch.nn.init.normal_(module.weight, std=(0.35 if residual else 0.7) * module.in_features**-0.5)
    vectors: dict[str, torch.Tensor] = {}
    width = model.config.hidden_size
    for token in range(len(tokenizer)):
        words = re.findall(r"\w+|[^\w\s]+", tokenizer.decode([token]).lower()) or [str(token)]
        total = torch.zeros(width)
        for word in words:
            # Of a numbered name the number says less than the noun.
            share = 0.45 if word.isdigit() and len(words) > 1 else 0.9
            total += share * vectors.setdefault(word, torch.randn(width))
        # A little of its own tells it from other tokens of the same words.
        vector = total / len(words) ** 0.5 + 0.1 * torch.randn(width)
        model.get_input_embeddings().weight[token] = 0.3 * vector
        if not model.config.tie_word_embeddings:
            model.get_output_embeddings().weight[token] = 0.05 * vector


def build_tiny_policy(folder: Path, tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> None:
    """Writes a randomly initialised model with its tokenizer.

    Args:
        folder: where; made if it is not there.
        tokenizer: of `train_tokenizer`.
        size: shape of the model.
        seed: of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    size = size or TinySize()
    config = LlamaConfig(
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
        model = LlamaForCausalLM(config)
        _initialise(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
