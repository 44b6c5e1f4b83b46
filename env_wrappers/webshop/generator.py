"""Products made from a seed: as many as one likes, each by itself.

The row of a product and the seed determine it, so any process makes it without the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from env_wrappers.webshop.assortment import KINDS, Kind
from env_wrappers.webshop.products import Product, Wish

VERSION = 1  # raised when other products are made
MAX_PRODUCTS = 5_000_000

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IDS = 36**8
_STEP = 1_234_567_891_237  # has no factor in common with _IDS, so that no two rows get the same id
_SYLLABLES = ("al", "bel", "cor", "dan", "el", "fir", "gal", "hav", "in", "jor", "kal", "lum", "mar", "nor", "ol",
              "pra", "quin", "ros", "sol", "tal", "um", "ver", "wil", "yor", "zan")  # fmt: skip
_REQUESTS = (
    "i am looking for {query} that are {attributes}{options}.",
    "i need {attributes} {query}{options}",
    "can you find me {query}? they should be {attributes}{options}.",
    "show me some {query} which are {attributes}{options}",
)


def make_product(seed: int, row: int) -> Product:
    """One product of the catalogue of a seed.

    Args:
        seed: of the catalogue.
        row: place in it, from 0 to `MAX_PRODUCTS` - 1.
    """
    rng = random.Random(f"product {seed} {row}")
    kind = rng.choice(KINDS)
    brand = "".join(rng.sample(_SYLLABLES, rng.randint(2, 3))).capitalize()
    thing, material = rng.choice(kind.things), rng.choice(kind.materials)
    purposes = rng.sample(kind.purposes, 2)
    attributes = tuple(rng.sample(kind.attributes, rng.randint(3, 6)))
    # Titles name some attributes, bullets the others: who reads only titles cannot tell all products apart.
    named = attributes[: rng.randint(1, 2)]
    wanted = tuple(sorted(rng.sample(attributes, rng.randint(1, min(3, len(attributes))))))
    options = _options(rng, kind)
    words = [brand, *named, material, thing]
    title = f"{' '.join(_capitalised(word) for word in words)} for {' and '.join(map(_capitalised, purposes))}"
    return Product(
        asin=_asin(seed, row),
        title=title,
        description=(
            f"This {thing} by {brand} is made of {material}. Its {rng.choice(('look', 'feel', 'shape'))} goes well "
            f"with {purposes[0]} and {purposes[1]}. {_capitalised(', '.join(attributes))}. One of our {kind.query}."
        ),
        bullets=tuple(
            f"{_capitalised(name)}: {rng.choice(('made', 'chosen', 'meant'))} for {rng.choice(kind.purposes)}."
            for name in rng.sample(attributes, len(attributes))
        ),
        prices=_prices(rng, kind),
        options=options,
        attributes=attributes,
        category=kind.category,
        query=kind.query,
        product_category=kind.path,
        nouns=tuple(" ".join([brand, material, thing, *purposes]).lower().split()),
        instruction=f"Find me {', '.join(wanted)} {kind.query} made of {material}",
        instruction_attributes=wanted,
        wishes=tuple(_wish(rng, kind, wanted, options) for _ in range(2)),
    )


def _asin(seed: int, row: int) -> str:
    number = (seed * 7_919 + row * _STEP) % _IDS
    digits = ""
    for _ in range(8):
        number, digit = divmod(number, 36)
        digits += _DIGITS[digit]
    return "G0" + digits


def _options(rng: random.Random, kind: Kind) -> dict[str, tuple[str, ...]]:
    chosen = {}
    for name, values in kind.options.items():
        if rng.random() < 0.8:
            number = rng.randint(2, min(5, len(values)))
            picked = set(rng.sample(values, number))
            chosen[name] = tuple(value for value in values if value in picked)
    return chosen


def _prices(rng: random.Random, kind: Kind) -> tuple[float, ...]:
    low, high = kind.prices
    price = round(rng.uniform(low, high), 2)
    return (price,) if rng.random() < 0.8 else (price, round(price * rng.uniform(1.05, 1.6), 2))


def _wish(rng: random.Random, kind: Kind, wanted: Sequence[str], options: dict[str, tuple[str, ...]]) -> Wish:
    picks = tuple(rng.choice(values) for values in options.values() if rng.random() < 0.8)
    asked = f", in {' and '.join(picks)}" if picks else ""
    request = rng.choice(_REQUESTS)
    return Wish(request.format(query=kind.query, attributes=" and ".join(wanted), options=asked), tuple(wanted), picks)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
