"""What customers want: goals made from products, in one fixed order, in splits that share none.

The published environment shuffles the goals in each worker anew, so that those of its test come up in training.
Here the order is that of one seed and the splits are cut from it: test 0-499, eval 500-1499, train from 1500.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from env_wrappers.webshop.products import Product, Wish
from env_wrappers.webshop.reward import Goal

KINDS = ("synthetic", "human")
SPLITS = ("train", "eval", "test")
TRAIN, EVAL, TEST = 0, 1, 2
DIVISIONS = ("published", "disjoint")
SHUFFLE_SEED = 233
TEST_END, EVAL_END = 500, 1500
NO_LIMIT = 1_000_000.0

_PRICE_STEPS = tuple(10.0 * step for step in range(1, 100))

# A goal is (row of its product, number among the product's goals).
Pairs = npt.NDArray[np.int32]


def count(product: Product, kind: str) -> int:
    """How many goals of a kind a product has."""
    if kind == "human":
        return sum(bool(wish.attributes) for wish in product.wishes)
    if not product.instruction or not product.instruction_attributes:
        return 0
    return math.prod(len(values) for values in product.options.values())


def make_goal(product: Product, kind: str, number: int) -> Goal:
    """One of the goals of a product.

    Args:
        product: what it is made from.
        kind: "synthetic", one for each combination of options; or "human", in a person's words.
        number: less than `count`.
    """
    options: Any
    if kind == "human":
        wish = _wishes(product)[number]
        attributes, options = wish.attributes, wish.options
        limit, words = _price_limit(product, f"human {number}")
    else:
        attributes, options = product.instruction_attributes, _combination(product, number)
        limit, words = _price_limit(product, "synthetic")
    return Goal(
        asin=product.asin,
        instruction=wording(product, kind, number) + words,
        category=product.category,
        query=product.query,
        product_category=product.product_category,
        nouns=product.nouns,
        attributes=attributes,
        options=options,
        price_upper=limit,
    )


def wording(product: Product, kind: str, number: int) -> str:
    """The instruction of a goal without the price limit, which is drawn."""
    if kind == "human":
        return _wishes(product)[number].instruction.strip(".")
    asked = ", and ".join(f"{name}: {value}" for name, value in _combination(product, number).items())
    return f"{product.instruction}{' with ' + asked if asked else ''}"


def _wishes(product: Product) -> list[Wish]:
    return [wish for wish in product.wishes if wish.attributes]


def _combination(product: Product, number: int) -> dict[str, str]:
    chosen = {}
    for name in sorted(product.options, reverse=True):
        values = product.options[name]
        number, index = divmod(number, len(values))
        chosen[name] = values[index]
    return dict(sorted(chosen.items()))


def _price_limit(product: Product, goal: str) -> tuple[float, str]:
    """The highest price that is accepted, and how it is said."""
    price = product.price()
    steps = [step for step in _PRICE_STEPS if step > price][:4]
    if len(steps) < 2:
        return NO_LIMIT, ""
    limit = max(random.Random(f"limit of {product.asin} {goal}").sample(steps, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def arrange(counts: Sequence[int]) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """All goals in their fixed order.

    Args:
        counts: goals of each product, in the order of the catalogue.

    Returns:
        int32 [goals, 2]: row of the product, number of the goal. The number in a goal's id is its place here.
        int64 [goals]: where each stood before, in the order of the catalogue.
    """
    sizes = np.array(counts, np.int64)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    shuffled = array("q", range(len(rows)))  # a large catalogue has millions
    random.Random(SHUFFLE_SEED).shuffle(shuffled)
    order = np.array(shuffled, np.int64)
    return np.stack([rows, numbers], axis=1).astype(np.int32)[order], order


def divide(pairs: Pairs, division: str, wordings: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Which split each goal is in.

    A goal that is worded like one of an earlier split (test, then eval) is in no split: who has trained on it knows
    the other.

    Args:
        pairs: of `arrange`.
        division: "published" cuts the order at 500 and 1500. "disjoint" also keeps the products apart: whole products,
            in an order of their own, go to test until it has 500 goals or a tenth of all, then to eval until it has
            1000 or a fifth.
        wordings: a number for each goal, equal where the wordings are; in the order of `pairs`.

    Returns:
        int8 [goals]: index in `SPLITS`, or -1.
    """
    if division == "published":
        places = np.arange(len(pairs))
        parts = np.where(places < TEST_END, TEST, np.where(places < EVAL_END, EVAL, TRAIN)).astype(np.int8)
    else:
        parts = _by_product(pairs)
    taken = wordings[parts == TEST]
    parts[(parts != TEST) & np.isin(wordings, taken)] = -1
    taken = np.concatenate([taken, wordings[parts == EVAL]])
    parts[(parts == TRAIN) & np.isin(wordings, taken)] = -1
    return parts


def _by_product(pairs: Pairs) -> npt.NDArray[np.int8]:
    rows, members, counts = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    order = list(range(len(rows)))
    random.Random(SHUFFLE_SEED).shuffle(order)
    parts = np.full(len(rows), TRAIN, np.int8)
    start = 0
    for part, size in ((TEST, min(TEST_END, len(pairs) // 10)), (EVAL, min(EVAL_END - TEST_END, len(pairs) // 5))):
        held = np.cumsum(counts[order[start:]])
        end = start + int(np.searchsorted(held, size)) + 1
        parts[order[start:end]] = part
        start = end
    return parts[members]
