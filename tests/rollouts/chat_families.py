"""Chat templates that behave as those of the families do, in our own words, with small tokenizers of the same kinds.

Each template does what its family's does to a conversation: what it opens, strips, trims, merges, refuses and prints.
The published ones also know tools and images, which do not matter here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

APPENDED, OWN_SEQUENCE = "appended", "own sequence"


@dataclass(frozen=True)
class Family:
    """A kind of models, and what is to become of a conversation with one.

    Attributes:
        template: its behaviour.
        tokenizer: one of `TOKENIZERS`.
        special: special tokens, the end-of-text token first.
        markup: added tokens that are not special.
        strips: token flags, as Phi 3's: blanks behind a token belong to it.
        bos: begins a conversation.
        kwargs: variables of the template.
        replies: what becomes of a turn after a reply without a thought.
        thoughts: what becomes of a turn after a reply with one.
        system: "kept", "moved" (into another message) or "refused".
        opens: what the prompt opens of the reply.
        dated: whether prompts print the date.
    """

    template: str
    tokenizer: str = "byte level"
    special: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    markup: tuple[str, ...] = ()
    strips: bool = False
    bos: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    replies: str = APPENDED
    thoughts: str = APPENDED
    system: str = "kept"
    opens: str = ""
    dated: bool = False


_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def chatml(default_system: str = "", prompt: str = _CHATML_PROMPT) -> str:
    """Qwen 2.5's, SmolLM 2's and many others'."""
    default = f"<|im_start|>system\n{default_system}<|im_end|>\n"
    opening = f"{{% if messages[0].role != 'system' %}}{{{{ {default!r} }}}}{{% endif %}}" if default_system else ""
    return f"{opening}{{% for m in messages %}}{_CHATML}{{% endfor %}}{prompt}"


def thinking_chatml(prompt: str, trim: str = "") -> str:
    """Qwen 3's: no thought of a reply that a user message follows."""
    return (
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
        "{% endif %}{% endfor %}{% for m in messages %}{% set content = m.content" + trim + " %}"
        "{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in content %}"
        "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{% if loop.index0 > ns.last and (loop.last or thought) %}{% set content = '<think>\n' + thought.strip('\n') "
        "+ '\n</think>\n\n' + content %}{% endif %}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" + prompt + "{% endif %}"
    )


_QWEN3 = thinking_chatml(
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
_QWEN3_5 = thinking_chatml(
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% else %}"
    "{{ '<think>\n' }}{% endif %}",
    trim=" | trim",
)
_QWEN_MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")

_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
    " + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA3_1 = (
    "{{ bos_token }}{% set date = strftime_now('%d %b %Y') %}{% if messages[0].role == 'system' %}"
    "{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}"
    "{% endif %}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date + '\n\n' + system + '<|eot_id|>' }}"
) + _LLAMA3.removeprefix("{{ bos_token }}")
_LLAMA3_TOKENS = ("<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

_GEMMA = (
    "{{ bos_token }}SYSTEM{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role)"
    " + '\n' + (prefix if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_GEMMA2 = _GEMMA.replace(
    "SYSTEM",
    "{% set prefix = '' %}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}",
)
_GEMMA3 = _GEMMA.replace(
    "SYSTEM",
    "{% set prefix = '' %}{% if messages[0].role == 'system' %}{% set prefix = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}",
)
_GEMMA4 = (
    "{{ bos_token }}{% for m in messages %}{% set content = m.content %}{% if m.role == 'assistant' %}"
    "{% set kept = namespace(text='') %}{% for part in content.split('<channel|>') %}"
    "{% set kept.text = kept.text + part.split('<|channel>')[0] %}{% endfor %}{% set content = kept.text %}{% endif %}"
    "{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + content | trim + '<turn|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)
_GEMMA_BLANKS = ("\n\n", "\n\n\n", "▁▁", "▁▁▁")

_LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# The system message stands in the last user message, and so moves on.
_MISTRAL3 = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL_SMALL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = 'Today is ' + strftime_now('%Y-%m-%d') + '.' %}{% endif %}"
    "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)

_PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}"
    "{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
_SMOLLM3 = (
    "{% set think = enable_thinking is not defined or enable_thinking %}{% if messages[0].role == 'system' %}"
    "{% set custom = messages[0].content %}{% set messages = messages[1:] %}{% else %}{% set custom = 'Help.' %}{% endif %}"
    "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: '"
    " + ('/think' if think else '/no_think') + '\n\n' + custom + '<|im_end|>\n' }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' + ('' if think else '<think>\n\n</think>\n')"
    " + m.content.lstrip('\n') + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' + ('' if think else "
    "'<think>\n\n</think>\n') }}{% endif %}"
)
_GRANITE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% else %}"
    "{% set system = \"Today's Date: \" + strftime_now('%B %d, %Y') + '.' %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}{% for m in messages %}"
    "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
# The openings are plain text.
_OLMO2 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last or m.role != 'assistant' %}{{ '\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# A reply has no end of its own: the next user's opening is it.
_GLM = (
    "{{ '[gMASK]<sop>' }}{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% set quiet = enable_thinking is defined and not enable_thinking %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}{% set thought = '' %}"
    "{% if '</think>' in content %}{% set thought = content.split('</think>')[0].split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<|assistant|>\n<think>' + (thought.strip() if "
    "loop.index0 > ns.last else '') + '</think>\n' + content.strip() }}{% else %}{{ '<|' + m.role + '|>\n' + m.content + "
    "('/nothink' if quiet and m.role == 'user' and not m.content.endswith('/nothink') else '') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + ('\n<think></think>' if quiet else '') }}{% endif %}"
)
_GPT_OSS = (
    "{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
    "{% if messages[0].role == 'system' %}{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + "
    "'\n\n<|end|>' }}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if '<|channel|>final<|message|>' in m.content %}{{ raise_exception('pass the channels as fields') }}{% endif %}"
    "{% if loop.last and not add_generation_prompt %}{% if 'thinking' in m %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{% else %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}{% else %}"
    "{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_GPT_OSS_TOKENS = ("<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|endoftext|>")

FAMILIES: Mapping[str, Family] = {
    "Qwen 2.5": Family(chatml("You are Qwen."), markup=_QWEN_MARKUP[2:]),
    "Qwen 3": Family(_QWEN3, markup=_QWEN_MARKUP, thoughts=OWN_SEQUENCE),
    "Qwen 3, `enable_thinking=False`": Family(
        _QWEN3,
        markup=_QWEN_MARKUP,
        kwargs={"enable_thinking": False},
        replies=OWN_SEQUENCE,
        thoughts=OWN_SEQUENCE,
        opens="<think>\n\n</think>\n\n",
    ),
    "Qwen 3 Instruct 2507": Family(chatml(), markup=_QWEN_MARKUP),
    "Qwen 3 Thinking 2507, QwQ": Family(
        thinking_chatml("{{ '<think>\n' }}"),
        markup=_QWEN_MARKUP,
        replies=OWN_SEQUENCE,
        thoughts=OWN_SEQUENCE,
        opens="<think>\n",
    ),
    "Qwen 3.5": Family(_QWEN3_5, markup=_QWEN_MARKUP, replies=OWN_SEQUENCE, thoughts=OWN_SEQUENCE, opens="<think>\n"),
    "Qwen 3.5, `enable_thinking=False`": Family(
        _QWEN3_5,
        markup=_QWEN_MARKUP,
        kwargs={"enable_thinking": False},
        replies=OWN_SEQUENCE,
        thoughts=OWN_SEQUENCE,
        opens="<think>\n\n</think>\n\n",
    ),
    "Llama 2": Family(_LLAMA2, "space before every piece", ("</s>", "<s>"), bos="<s>"),
    "Llama 3": Family(_LLAMA3, special=_LLAMA3_TOKENS, bos="<|begin_of_text|>"),
    "Llama 3.1 to 3.3": Family(_LLAMA3_1, special=_LLAMA3_TOKENS, bos="<|begin_of_text|>", dated=True),
    "Gemma 2": Family(
        _GEMMA2,
        "no space before a piece",
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        markup=(*_GEMMA_BLANKS, "<h1>"),
        bos="<bos>",
        system="refused",
    ),
    "Gemma 3": Family(
        _GEMMA3,
        "no space before a piece",
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        markup=(*_GEMMA_BLANKS, "<h1>"),
        bos="<bos>",
        system="moved",
    ),
    "Gemma 4": Family(
        _GEMMA4,
        "no space before a piece",
        ("<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
        markup=_GEMMA_BLANKS,
        bos="<bos>",
        thoughts=OWN_SEQUENCE,
    ),
    "Mistral 7B": Family(
        _MISTRAL3, "space before the first piece", ("</s>", "<s>", "[INST]", "[/INST]"), bos="<s>", system="moved"
    ),
    "Mistral Small": Family(
        _MISTRAL_SMALL,
        special=("</s>", "<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        bos="<s>",
        dated=True,
    ),
    "Phi 3 and 3.5": Family(
        _PHI3,
        "space before every piece",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        strips=True,
    ),
    "Phi 4": Family(_PHI4, special=("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>")),
    "DeepSeek-R1 distills": Family(
        _R1,
        special=("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
        markup=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        bos="<｜begin▁of▁sentence｜>",
        replies=OWN_SEQUENCE,
        thoughts=OWN_SEQUENCE,
        opens="<think>\n",
    ),
    "SmolLM 2": Family(chatml("You are a helpful AI assistant.")),
    "SmolLM 3": Family(_SMOLLM3, markup=("<think>", "</think>"), dated=True),
    "SmolLM 3, `enable_thinking=False`": Family(
        _SMOLLM3,
        markup=("<think>", "</think>"),
        kwargs={"enable_thinking": False},
        opens="<think>\n\n</think>\n",
        dated=True,
    ),
    "Granite 3": Family(_GRANITE, special=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), dated=True),
    "OLMo 2": Family(_OLMO2, special=("<|endoftext|>",), bos="<|endoftext|>"),
    "GLM 4.6": Family(
        _GLM,
        special=("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        markup=("<think>", "</think>", "/nothink"),
        replies=OWN_SEQUENCE,
        thoughts=OWN_SEQUENCE,
    ),
    "GLM 4.6, `enable_thinking=False`": Family(
        _GLM,
        special=("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        markup=("<think>", "</think>", "/nothink"),
        kwargs={"enable_thinking": False},
        thoughts=OWN_SEQUENCE,
        opens="<think></think>",
    ),
    "gpt-oss": Family(
        _GPT_OSS, special=_GPT_OSS_TOKENS, replies=OWN_SEQUENCE, thoughts=OWN_SEQUENCE, dated=True, system="moved"
    ),
}

_CORPUS = [
    "You are in the middle of a room. Looking quickly around you, you see a bed 1, a desk 1, a drawer 2 and a mug 1.",
    "Today Date: 01 January 2026\n\nHelp. user assistant system model developer think INST",
    "take mug 1 from desk 1\n\ngo to sink 2\nI must find a mug first.  It may be on the desk.",
] * 3


def tokenizer_for(family: Family) -> Any:
    """A small tokenizer of the family's kind, with its tokens and its template."""
    return build_tokenizer(
        family.template, family.tokenizer, family.special, family.markup, bos=family.bos, strips=family.strips
    )


def build_tokenizer(
    template: str,
    kind: str,
    special: tuple[str, ...],
    markup: tuple[str, ...] = (),
    *,
    bos: str | None = None,
    strips: bool = False,
) -> Any:
    """A small tokenizer with a chat template; the first special token is the end of text."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_trained(kind))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    flags = {"normalized": False, "rstrip": strips}
    wrapped.add_special_tokens({"eos_token": AddedToken(special[0], special=True, normalized=False)})
    wrapped.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True, **flags) for token in special[1:]]}
    )
    if bos:
        wrapped.add_special_tokens({"bos_token": AddedToken(bos, special=True, normalized=False)})
    wrapped.add_tokens([AddedToken(token, special=False, normalized=False) for token in markup])
    wrapped.chat_template = template
    return wrapped


@functools.cache
def _trained(kind: str) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "byte level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(_CORPUS, trainer)
        return str(tokenizer.to_str())
    # As SentencePiece models are converted: pieces with a space mark, bytes for what no piece covers.
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "▁")
    strip: list[Any] = [decoders.Strip(" ", 1, 0)]
    if kind == "space before every piece":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    elif kind == "space before the first piece":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        assert kind == "no space before a piece", kind
        tokenizer.normalizer = space
        strip = []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=640, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator([word for text in _CORPUS for word in text.split("\n")], trainer)
    # Bytes and <unk> are pieces of the model, not added tokens.
    import json

    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = []
    return json.dumps(spec)
