"""From rendered prompts to token ids, in which only the template's own markup is markup.

A prompt is encoded as a whole, as `apply_chat_template` encodes it: pieces encoded apart would get a space mark each
from a SentencePiece tokenizer, and would not merge where they meet. What an environment says is data all the same:
whatever looks like a token of the template in it is written in escapes while the template renders, and encoded as the
characters that it consists of.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

# Unicode's noncharacters: no text has them for anything but this. Where one does, it is escaped too.
_ESCAPE, _END = "\ufdd0", "\ufdd1"
_ESCAPED = re.compile(f"{_ESCAPE}([0-9]+){_END}")
# Added tokens of these characters alone (runs of blanks, words of a domain) are no markup.
_WORDS = re.compile(r"[\w\s▁.,'-]*")


class PromptEncoder:
    """Encodes what a chat template renders.

    Args:
        tokenizer: a Hugging Face tokenizer with a `tokenizer.json`.

    Raises:
        ValueError: it is one of another kind.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} is a {type(tokenizer).__name__}, which cannot tell what "
                "an environment says from markup. Use a model whose folder has a tokenizer.json."
            )
        self._tokenizer = _without_limits(tokenizer.backend_tokenizer.to_str())
        added = {index: str(token.content) for index, token in tokenizer.added_tokens_decoder.items()}
        #: Ids of special tokens, which end messages.
        self.special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._markup = {
            index: content for index, content in added.items() if index in self.special or not _WORDS.fullmatch(content)
        }

    def protect(self, data: str, live: str | None = None) -> str:
        """Text that is data, written so that nothing in it is markup to `encode`.

        Args:
            data: what somebody said.
            live: None for an environment, in whose words nothing is markup. In an agent's reply what is not special
                stays, and of the special tokens those that this text names.
        """
        if _ESCAPE in data:
            data = data.replace(_ESCAPE, _escaped(_ESCAPE))
        parts: list[str] = []
        done = 0
        for index, start, end in self._find_markup(data):
            content = self._markup[index]
            if live is not None and (index not in self.special or content in live):
                continue
            parts += [data[done:start], _escaped(data[start:end])]
            done = end
        return "".join([*parts, data[done:]])

    def encode(self, text: str) -> list[int]:
        """Ids of a text that holds markup, and data that was protected."""
        if _ESCAPE not in text:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        done = 0
        for index, start, end in [*self._find_markup(text), (None, len(text), len(text))]:
            if run := text[done:start]:
                ids += self._encode_plain(_ESCAPED.sub(_unescaped, run), first=done == 0)
            if index is not None:
                ids.append(index)
            done = end
        return ids

    def first_special(self, text: str) -> int | None:
        """The first special token in a text, if there is one."""
        found = (index for index, _, _ in self._find_markup(text) if index in self.special)
        return next(found, None)

    def _find_markup(self, text: str) -> list[tuple[int, int, int]]:
        """Id, start and end of every token of markup in a text, as the tokenizer finds them."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [(index, *offsets) for index, offsets in pairs if index in self._markup]

    def _encode_plain(self, text: str, first: bool) -> list[int]:
        plain, real = self._plain_first if first else self._plain_later
        return [real.get(index, index) for index in plain.encode(text, add_special_tokens=False).ids]

    @cached_property
    def _plain_first(self) -> tuple[Any, dict[int, int]]:
        return self._without_markup(json.loads(self._tokenizer.to_str()))

    @cached_property
    def _plain_later(self) -> tuple[Any, dict[int, int]]:
        """For a text that follows markup: the space mark that some put before the first word of all is not for it."""
        spec = json.loads(self._tokenizer.to_str())
        before: Any = spec.get("pre_tokenizer") or {}
        for step in before.get("pretokenizers", [before]):
            if step.get("type") == "Metaspace" and step["prepend_scheme"] == "first":
                step["prepend_scheme"] = "never"
        return self._without_markup(spec)

    def _without_markup(self, spec: dict[str, Any]) -> tuple[Any, dict[int, int]]:
        """The same tokenizer with no markup in it, and its ids of the added tokens that are left to the real ones."""
        from tokenizers import Tokenizer

        markup = set(self._markup.values())
        left = {token["content"]: token["id"] for token in spec["added_tokens"] if token["content"] not in markup}
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in left]
        _forget(spec["model"], markup)
        spec["post_processor"] = spec["truncation"] = spec["padding"] = None
        plain = Tokenizer.from_str(json.dumps(spec))
        real: dict[int, int] = {plain.token_to_id(content): index for content, index in left.items()}  # type: ignore[misc]
        return plain, real


def _without_limits(spec: str) -> Any:
    """The tokenizer itself, without what Hugging Face does around it at every call, which takes three times as long."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(spec)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _escaped(text: str) -> str:
    return "".join(f"{_ESCAPE}{ord(character)}{_END}" for character in text)


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1]))


def _forget(model: dict[str, Any], markup: set[str]) -> None:
    """Takes markup out of a model's own pieces: renamed, so that the ids of the others stay."""

    def name(piece: str) -> str:
        return f"{_ESCAPE}{piece}" if piece in markup else piece

    kept = {model.get("unk_token")}
    markup -= kept
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        model["vocab"] = [
            [piece if place == unknown else name(piece), score] for place, (piece, score) in enumerate(model["vocab"])
        ]
        return
    model["vocab"] = {name(piece): index for piece, index in model["vocab"].items()}
    if model["type"] == "BPE":
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not markup & {pair[0], pair[1], pair[0] + pair[1]}]
