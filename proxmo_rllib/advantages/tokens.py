"""Words of many texts at once, as integers.

A regular expression makes a Python string of every word, which alone costs more than everything else here. The two
usual patterns mean "runs of word characters", and those are found in the joined text with array arithmetic; any other
pattern goes through `re`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from proxmo_rllib.advantages.table import IntArray

TOKEN_PATTERN = r"(?u)\b\w+\b"
# scikit-learn's default: drops one-character tokens, which makes "drawer 1" and "drawer 2" the same place.
TWO_CHARACTER_PATTERN = r"(?u)\b\w\w+\b"

_SHORTEST_RUN = {TOKEN_PATTERN: 1, TWO_CHARACTER_PATTERN: 2}
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, hence invertible modulo 2^64
_ASCII_WORD = np.array([chr(code).isalnum() or chr(code) == "_" for code in range(128)])


class Tokens(NamedTuple):
    """The words of some texts, in the order of the texts."""

    text_of: IntArray  # [tokens] index of the text
    term_of: IntArray  # [tokens] index of the word in `terms`
    terms: Sequence[str]  # the distinct words


def tokenize(texts: Sequence[str], pattern: str) -> Tokens:
    """Lower-cased words of each text.

    Args:
        texts: any number of texts.
        pattern: regular expression of one token, with at most one group, as scikit-learn's `token_pattern`.
    """
    if pattern in _SHORTEST_RUN:
        return _word_runs([text.lower() for text in texts], _SHORTEST_RUN[pattern])
    find = re.compile(pattern).findall
    found = [find(text.lower()) for text in texts]
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    term_of = np.fromiter(
        map(vocabulary.__getitem__, chain.from_iterable(found)), dtype=np.int64, count=int(lengths.sum())
    )
    return Tokens(np.repeat(np.arange(len(found)), lengths), term_of, list(vocabulary))


def _word_runs(texts: list[str], shortest: int) -> Tokens:
    joined = "\n".join(texts) + "\n"
    codes, is_word = _characters(joined)
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    if is_word[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[0::2], edges[1::2]  # the joined text ends with a line break, so every run has an end
    if shortest > 1:
        long_enough = ends - starts >= shortest
        starts, ends = starts[long_enough], ends[long_enough]
    distinct, term_of = np.unique(_fingerprints(codes, starts, ends), return_inverse=True)
    example = np.empty(len(distinct), dtype=np.int64)
    example[term_of] = np.arange(len(term_of))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    text_of = np.searchsorted(np.cumsum(lengths + 1), starts, side="right")
    words = _Words(joined, starts[example], ends[example])
    return Tokens(text_of, term_of, words)


def _characters(text: str) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.bool_]]:
    """Code points of a text, and which of them are word characters (`\\w`)."""
    if text.isascii():
        codes: npt.NDArray[np.unsignedinteger] = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        return codes, _ASCII_WORD[codes]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    distinct, place = np.unique(codes, return_inverse=True)
    word = np.array([chr(code).isalnum() or code == ord("_") for code in distinct.tolist()])
    return codes, word[place]


def _fingerprints(codes: npt.NDArray[np.unsignedinteger], starts: IntArray, ends: IntArray) -> npt.NDArray[np.uint64]:
    """A 64-bit polynomial hash of each run; two of a million words collide with a chance of about 3e-8."""
    powers, inverse = _powers(len(codes))
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum((codes + np.uint64(1)) * powers[: len(codes)])])
        return (prefix[ends] - prefix[starts]) * inverse[starts]


_POWERS: dict[str, npt.NDArray[np.uint64]] = {}


def _powers(count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Powers of the multiplier and of its inverse modulo 2^64, at least `count` of each."""
    if len(_POWERS.get("powers", ())) < count:
        size = 1 << max(16, count.bit_length())
        for name, base in (("powers", _MULTIPLIER), ("inverse", pow(_MULTIPLIER, -1, 1 << 64))):
            table = np.full(size, base, dtype=np.uint64)
            table[0] = 1
            _POWERS[name] = np.cumprod(table)
    return _POWERS["powers"], _POWERS["inverse"]


class _Words(Sequence[str]):
    """Words cut out of the joined text when somebody asks for them."""

    def __init__(self, joined: str, starts: IntArray, ends: IntArray) -> None:
        self._joined, self._starts, self._ends = joined, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._joined[self._starts[index] : self._ends[index]]
