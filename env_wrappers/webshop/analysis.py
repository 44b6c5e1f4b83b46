"""From text to the terms that are searched for, as Lucene's analyser for English does it.

Words are cut where Unicode's rules say (UAX #29), possessives lose their ending, Lucene's 33 stop words are left out,
and what remains is stemmed.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from env_wrappers.webshop.stemming import stem

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
MAX_TOKEN = 255  # characters; Lucene cuts longer ones

# Most of what stands between spaces is ASCII without any of . , : ; ' _ between letters or digits, which alone can join
# them: its words are its runs of letters and digits.
_SIMPLE = re.compile(r"[a-z0-9!\"#$%&()*+\-/<=>?@\[\\\]^`{|}~]{,255}[.,:;']*")
_RUN = re.compile(r"[a-z0-9]+")
_BOUNDARY = regex.compile(r"(?wV1)\b")
# Extended_Pictographic of Unicode 12, as Lucene has it; it changed since.
_PICTOGRAPHS = (
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3"
    r"\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705"
    r"\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757"
    r"\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d"
    r"\u3297\u3299\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f"
    r"\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a"
    r"\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff"
    r"\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f"
    r"\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001fffd"
)
_WORDLIKE = regex.compile(rf"[\p{{L}}\p{{Nd}}{_PICTOGRAPHS}]")
_POSSESSIVES = ("'s", "\u2019s", "\uff07s", "'S", "\u2019S", "\uff07S")


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repetitions included."""
    found: list[str] = []
    # No word goes on past a space, and most of what stands between spaces has been seen before.
    for chunk in text.split():
        found += _terms_of_chunk(chunk)
    return found


@lru_cache(maxsize=2**16)
def _terms_of_chunk(chunk: str) -> tuple[str, ...]:
    if _SIMPLE.fullmatch(chunk):
        return tuple(_stem(word) for word in _RUN.findall(chunk) if word not in STOP_WORDS)
    found = []
    for piece in _BOUNDARY.split(chunk):
        if not _WORDLIKE.search(piece):
            continue
        for start in range(0, len(piece), MAX_TOKEN):
            word = _normalised(piece[start : start + MAX_TOKEN])
            if word and word not in STOP_WORDS:
                found.append(_stem(word))
    return tuple(found)


_stem = lru_cache(maxsize=2**15)(stem)


def _normalised(word: str) -> str:
    word = word.lstrip("'\u2019")
    if word.endswith(_POSSESSIVES):
        word = word[:-2]
    return word.lower()
