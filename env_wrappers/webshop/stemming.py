"""Porter's stemmer (M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980).

With the three departures of its author's own later implementations, which Lucene follows: "bli" becomes "ble", "logi"
becomes "log", and words of one or two letters stay.
"""

from __future__ import annotations

from collections.abc import Mapping

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


def stem(word: str) -> str:
    """The stem of a lower-case word. Letters that are not vowels, and digits, count as consonants."""
    if len(word) <= 2:
        return word
    word = _plurals(word)
    word = _past_and_progressive(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace_suffix(word, _STEP_2)
    word = _replace_suffix(word, _STEP_3)
    word = _strip_suffix(word)
    if word.endswith("e"):
        body = word[:-1]
        measure = _measure(body)
        if measure > 1 or (measure == 1 and not _ends_short(body)):
            word = body
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _plurals(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past_and_progressive(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            body = word[: -len(suffix)]
            return _tidy(body) if _has_vowel(body) else word
    return word


def _tidy(body: str) -> str:
    """What is left of a word after "ed" or "ing" was cut off, spelt as a word again."""
    if body.endswith(("at", "bl", "iz")):
        return body + "e"
    if len(body) > 1 and body[-1] == body[-2] and _is_consonant(body, len(body) - 1):
        return body if body[-1] in "lsz" else body[:-1]
    if _measure(body) == 1 and _ends_short(body):
        return body + "e"
    return body


def _longest_suffix(word: str, suffixes: Mapping[str, str] | tuple[str, ...]) -> str | None:
    for length in range(min(7, len(word)), 1, -1):
        if word[-length:] in suffixes:
            return word[-length:]
    return None


def _replace_suffix(word: str, suffixes: Mapping[str, str]) -> str:
    suffix = _longest_suffix(word, suffixes)
    if suffix is None or _measure(word[: -len(suffix)]) == 0:
        return word
    return word[: -len(suffix)] + suffixes[suffix]


def _strip_suffix(word: str) -> str:
    suffix = _longest_suffix(word, _STEP_4)
    if suffix is None:
        return word
    body = word[: -len(suffix)]
    if suffix == "ion" and not body.endswith(("s", "t")):
        return word
    return body if _measure(body) > 1 else word


def _is_consonant(word: str, index: int) -> bool:
    letter = word[index]
    if letter == "y":
        return index == 0 or not _is_consonant(word, index - 1)
    return letter not in "aeiou"


def _has_vowel(word: str) -> bool:
    return any(not _is_consonant(word, index) for index in range(len(word)))


def _measure(word: str) -> int:
    """How often a run of vowels is followed by a run of consonants."""
    measure = 0
    after_vowel = False
    for index in range(len(word)):
        consonant = _is_consonant(word, index)
        measure += after_vowel and consonant
        after_vowel = not consonant
    return measure


def _ends_short(word: str) -> bool:
    """Whether a word ends in consonant, vowel, consonant, of which the last is not w, x or y."""
    end = len(word) - 1
    return (
        end >= 2
        and word[end] not in "wxy"
        and _is_consonant(word, end)
        and not _is_consonant(word, end - 1)
        and _is_consonant(word, end - 2)
    )
