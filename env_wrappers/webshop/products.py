"""What the shop knows of a product, and how it is stored."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_PRICE = 100.0  # dollars; of products that name none


@dataclass(frozen=True, slots=True)
class Wish:
    """An instruction that a person wrote for a product."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]  # values alone


@dataclass(frozen=True, slots=True)
class Product:
    """One product, ready to be shown, searched and rated."""

    asin: str  # upper-case; clicked in lower case
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]  # dollars: none, one, or the two ends of a range
    options: Mapping[str, tuple[str, ...]]  # values by name, in the order of the page
    attributes: tuple[str, ...]
    category: str
    query: str  # what one would search for to find its like
    product_category: str  # a path with " › " between its parts
    nouns: tuple[str, ...]  # of the title, lower-case, with repetitions
    instruction: str | None = None  # of its synthetic goals, without options and price
    instruction_attributes: tuple[str, ...] = ()
    wishes: tuple[Wish, ...] = ()
    rating: str = "N.A."

    @property
    def price_tag(self) -> str:
        """The price as pages show it."""
        return " to ".join(f"${price}" for price in self.prices[:2]) or f"${NO_PRICE}"

    def price(self) -> float:
        """What it costs, in dollars: where pages show a range, a number of it that is always the same."""
        if len(self.prices) < 2:
            return self.prices[0] if self.prices else NO_PRICE
        return random.Random(f"price of {self.asin}").uniform(*self.prices[:2])

    def search_text(self) -> str:
        """What the index holds of it."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join([self.title, self.description, self.bullets[0] if self.bullets else "", options]).lower()

    def to_bytes(self) -> bytes:
        """The product as JSON."""
        record = [getattr(self, name) for name in _FIELDS]
        record[_FIELDS.index("wishes")] = [[wish.instruction, wish.attributes, wish.options] for wish in self.wishes]
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    @classmethod
    def from_bytes(cls, data: bytes) -> Product:
        """Read what `to_bytes` wrote."""
        values: dict[str, Any] = dict(zip(_FIELDS, json.loads(data), strict=True))
        for name in ("bullets", "prices", "attributes", "nouns", "instruction_attributes"):
            values[name] = tuple(values[name])
        values["options"] = {name: tuple(choices) for name, choices in values["options"].items()}
        values["wishes"] = tuple(Wish(text, tuple(names), tuple(picks)) for text, names, picks in values["wishes"])
        return cls(**values)


_FIELDS = tuple(Product.__dataclass_fields__)
