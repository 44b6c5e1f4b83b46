"""The nouns of a product's title, without a tagger.

The score compares titles by their nouns. The published environment finds them with a neural tagger at run time; where
a catalogue comes with `title_nouns.json` those are used, and elsewhere these: nearly all words of a title are nouns or
names, so what is left out are closed classes of words, numbers, and the commonest endings of adjectives and adverbs.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_WORDS = (
    "a an and the of for with to in on at by from or as is it its this that your our my you we they all any both each "
    "no not non only very more most than up out off over under into without per via plus new best great good free big "
    "small large medium long short high low mini soft hard easy natural organic portable adjustable wireless "
    "waterproof removable washable compatible vintage modern casual perfect multi one two three four five six ten "
    "black white red blue green pink grey gray brown purple yellow be can will fit fits made set-up"
)
_OTHERS = frozenset(_OTHER_WORDS.split())
_ENDINGS = ("ly", "able", "ible", "ful", "less", "ous", "proof")


def title_nouns(title: str) -> tuple[str, ...]:
    """Lower-case words of a title that are nouns, as far as their form tells; in order, with repetitions."""
    parts = (part for word in _WORD.findall(title.lower()) for part in re.split("-|['’]s?", word))
    return tuple(part for part in parts if _is_noun(part))


def _is_noun(word: str) -> bool:
    return len(word) > 1 and bool(_LETTER.match(word)) and word not in _OTHERS and not word.endswith(_ENDINGS)
