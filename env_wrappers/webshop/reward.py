"""What a purchase is worth: between 0 and 1, by kind of product, attributes, options and price.

Yao et al. 2022, arXiv:2207.01206, section 3.1 and appendix, with the thresholds of the published environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from env_wrappers.webshop.products import Product

SIMILAR = 85  # percent; more than that counts as the same

# The colours that the published environment knows (web_agent_site/engine/normalize.py), in its order: the first that
# is found in a name is the name's colour.
_COLORS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo "
    "caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream "
    "crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather "
    "indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha "
    "multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal "
    "rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise "
    "violet walnut wheat white wine yellow"
)
COLORS = tuple(_COLORS.split())
_LATIN_1 = dict.fromkeys(range(128, 256))
_NOT_WORD = re.compile(r"\W")


@dataclass(frozen=True, slots=True)
class Goal:
    """What the customer wants.

    Attributes:
        asin: of the product that the instruction was made from.
        instruction: in words.
        category: of the product, as are `query`, `product_category` and `nouns`.
        attributes: at least one.
        options: values by name for synthetic goals, values alone for human ones.
        price_upper: dollars; 1,000,000 for no limit.
    """

    asin: str
    instruction: str
    category: str
    query: str
    product_category: str
    nouns: tuple[str, ...]
    attributes: tuple[str, ...]
    options: Mapping[str, str] | tuple[str, ...]
    price_upper: float

    def __post_init__(self) -> None:
        if not self.attributes:
            raise ValueError(
                f"The goal {self.instruction!r} has no attribute; give it one or more, for the score divides by them."
            )


def score(
    product: Product, goal: Goal, price: float, chosen: Sequence[str], normalise_goal_colors: bool = False
) -> tuple[float, dict[str, Any]]:
    """Score of a purchase, and how it came about.

    Args:
        product: what was bought.
        goal: what was wanted.
        price: of the product, in dollars.
        chosen: values of its options.
        normalise_goal_colors: whether the colours of synthetic goals are compared by their basic colour, as those of
            the purchase are. The published environment does not, so that 6% of its goals cannot be reached.

    Returns:
        The score, and the published environment's details: `r_type`, `r_att`, `r_option` and `r_price` with their
        weights `w_...`, `query_match`, `category_match`, `title_score`. Options are missing where none is wanted.
    """
    details = _type_details(product, goal)
    attributes = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
    options = _matching_options(goal.options, chosen, normalise_goal_colors)
    affordable = price <= goal.price_upper
    parts = len(goal.attributes) + len(goal.options) + 1
    details |= {"r_att": attributes / len(goal.attributes), "w_att": len(goal.attributes) / parts}
    if goal.options:
        details |= {"r_option": options / len(goal.options), "w_option": len(goal.options) / parts}
    details |= {"r_price": affordable, "w_price": 1 / parts}
    return (attributes + options + affordable) / parts * details["r_type"], details


def _type_details(product: Product, goal: Goal) -> dict[str, Any]:
    same_query = product.query == goal.query
    shared = _parts(product.product_category) & _parts(goal.product_category)
    if goal.nouns:
        title = len(set(product.nouns) & set(goal.nouns)) / len(goal.nouns)
    else:
        title = 0.2
    factor = 1.0 if same_query or len(shared) >= 2 or title > 0.2 else 0.5
    if title < 0.1:
        factor = 0.1
    if title == 0:
        factor = 0.0
    return {"r_type": factor, "query_match": same_query, "category_match": len(shared) >= 2, "title_score": title}


def _parts(path: str) -> set[str]:
    return {part.strip() for part in path.split("›")}


def _has_attribute(product: Product, wanted: str) -> bool:
    return (
        any(similarity(attribute, wanted) > SIMILAR for attribute in product.attributes)
        or wanted in product.title.lower()
        or wanted in " ".join(product.bullets).lower()
        or wanted in product.description.lower()
    )


def _matching_options(wanted: Mapping[str, str] | tuple[str, ...], chosen: Iterable[str], normalise: bool) -> int:
    """How many of the wanted options were chosen."""
    if isinstance(wanted, Mapping):
        # The published environment compares the pair of name and value, and so finds a colour only in a value, or a
        # name, that is nothing but the colour.
        texts = [basic_color(value) if normalise else _color_of_pair(name, value) for name, value in wanted.items()]
    else:
        texts = [basic_color(value) for value in wanted]
    bought = [basic_color(value) for value in chosen]
    return sum(any(similarity(value, text) > SIMILAR for value in bought) for text in texts)


def basic_color(text: str) -> str:
    """The first known colour in a text, or the text if there is none."""
    return next((color for color in COLORS if color in text), text)


def _color_of_pair(name: str, value: str) -> str:
    return next((color for color in COLORS if color in (name, value)), f"{(name, value)}")


@lru_cache(maxsize=2**14)
def similarity(first: str, second: str) -> int:
    """How alike two texts are as sets of words, in percent: the token_set_ratio of thefuzz.

    The words that both have are compared with all words of either, and all words of one with all of the other; the
    best of the three counts.
    """
    first, second = _words(first), _words(second)
    if not first or not second:
        return 0
    left, right = set(first.split()), set(second.split())
    common = " ".join(sorted(left & right))
    one = f"{common} {' '.join(sorted(left - right))}".strip()
    other = f"{common} {' '.join(sorted(right - left))}".strip()
    return max(_ratio(common, one), _ratio(common, other), _ratio(one, other))


def _words(text: str) -> str:
    """Lower-case words with single characters between them: no Latin-1 letters beyond ASCII, no punctuation."""
    return _NOT_WORD.sub(" ", text.translate(_LATIN_1)).lower().strip()


def _ratio(first: str, second: str) -> int:
    """Twice the longest common subsequence over both lengths, in percent, rounded."""
    if not first or not second:
        return 0
    if first == second:
        return 100
    return round(200 * _common_subsequence(first, second) / (len(first) + len(second)))


def _common_subsequence(first: str, second: str) -> int:
    """Length of the longest common subsequence, with a row of the table in the bits of an integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, letter in enumerate(first):
        places[letter] = places.get(letter, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for letter in second:
        match = row & places.get(letter, 0)
        row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()
