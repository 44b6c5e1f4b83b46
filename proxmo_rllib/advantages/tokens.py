"""Words of many texts at once, as integers.

A regular expression makes a Python string of every word, which alone costs more than everything else here. The two
usual patterns mean "runs of word characters", and those are found in the joined text with array arithmetic; any other
pattern goes through `re`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from proxmo_rllib.advantages.table import IntArray

TOKEN_PATTERN = r"(?u)\b\w+\b"
# scikit-learn's default: drops one-character tokens, which makes "drawer 1" and "drawer 2" the same place.
TWO_CHARACTER_PATTERN = r"(?u)\b\w\w+\b"

_SHORTEST_RUN = {TOKEN_PATTERN: 1, TWO_CHARACTER_PATTERN: 2}
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, hence invertible modulo 2^64
_ASCII_WORD = bytes(chr(code).isalnum() or chr(code) == "_" for code in range(256))
_FIRST_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(9)], dtype=np.uint64)  # masks
_SLOT_BITS = 14


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
    encoded, byte_of, is_word = _characters(joined)
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    if is_word[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[0::2], edges[1::2]  # the joined text ends with a line break, so every run has an end
    if shortest > 1:
        long_enough = ends - starts >= shortest
        starts, ends = starts[long_enough], ends[long_enough]
    places = (starts, ends) if byte_of is None else (byte_of[starts], byte_of[ends])
    count, term_of = _numbered(_fingerprints(encoded, *places))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    words_before = np.searchsorted(starts, np.cumsum(lengths + 1))
    text_of = np.repeat(np.arange(len(texts)), np.diff(words_before, prepend=0))
    return Tokens(text_of, term_of, _Words(joined, starts, ends, term_of, count))


def _characters(text: str) -> tuple[bytes, IntArray | None, npt.NDArray[np.bool_]]:
    """The text in UTF-8, the place in it of each character (None: the same), and which are word characters (`\\w`)."""
    encoded = text.encode("utf-8", "surrogatepass")
    if text.isascii():
        return encoded, None, np.frombuffer(encoded.translate(_ASCII_WORD), dtype=np.bool_)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    distinct, place = np.unique(codes, return_inverse=True)
    word = np.array([chr(code).isalnum() or code == ord("_") for code in distinct.tolist()])
    width = 1 + (distinct > 0x7F) + (distinct > 0x7FF) + (distinct > 0xFFFF)
    return encoded, np.cumsum(width[place]) - width[place], word[place]


def _fingerprints(encoded: bytes, starts: IntArray, ends: IntArray) -> npt.NDArray[np.uint64]:
    """64 bits of each run of bytes.

    Runs of at most eight bytes never share them; two of a million longer ones do with a chance of about 3e-8.
    """
    # The eight bytes from each place on, as one integer.
    eight = np.ndarray(len(encoded), dtype="<u8", buffer=encoded + bytes(8), strides=(1,)).copy()
    length = ends - starts
    prints: npt.NDArray[np.uint64] = eight.take(starts) & _FIRST_BYTES.take(np.minimum(length, 8))
    done, longer = 8, np.flatnonzero(length > 8)
    while len(longer):
        following = eight[starts[longer] + done] & _FIRST_BYTES[np.minimum(length[longer] - done, 8)]
        prints[longer] = prints[longer] * _MULTIPLIER ^ following
        done += 8
        longer = longer[length[longer] > done]
    return prints * _MULTIPLIER


def _numbered(prints: npt.NDArray[np.uint64]) -> tuple[int, IntArray]:
    """How many distinct values there are, and the rank of each value among them.

    As `np.unique` with its inverse, which sorts them all: here only those are searched for whose place in a small table
    another value took.
    """
    slot = (prints >> np.uint64(64 - _SLOT_BITS)).view(np.int64)
    table = np.zeros(1 << _SLOT_BITS, dtype=np.uint64)
    table[slot] = prints
    others = np.flatnonzero(table.take(slot) != prints)
    used = np.flatnonzero(table)
    distinct = np.unique(np.concatenate([table[used], prints[others]]))
    rank_of_slot = np.zeros(len(table), dtype=np.int64)
    rank_of_slot[used] = np.searchsorted(distinct, table[used])
    rank = rank_of_slot.take(slot)
    rank[others] = np.searchsorted(distinct, prints[others])
    return len(distinct), rank


class _Words(Sequence[str]):
    """Words cut out of the joined text when somebody asks for them."""

    def __init__(self, joined: str, starts: IntArray, ends: IntArray, term_of: IntArray, count: int) -> None:
        self._joined, self._starts, self._ends = joined, starts, ends
        self._term_of, self._count = term_of, count

    @cached_property
    def _example(self) -> IntArray:
        """One of the tokens of each word."""
        example = np.empty(self._count, dtype=np.int64)
        example[self._term_of] = np.arange(len(self._term_of))
        return example

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        token = self._example[index]
        return self._joined[self._starts[token] : self._ends[token]]
