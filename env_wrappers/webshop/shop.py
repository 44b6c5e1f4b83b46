"""The shop as a state machine: what each page says, what can be clicked on it, and where that leads."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum

from env_wrappers.webshop.catalogue import Catalogue
from env_wrappers.webshop.products import Product

SEPARATOR = " [SEP] "
BACK, PREVIOUS, NEXT, SEARCH, BUY = "Back to Search", "< Prev", "Next >", "Search", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
PAGE_SIZE = 10

_ACTION = re.compile(r"(.+)\[(.+)\]")


class Page(StrEnum):
    """Kinds of pages."""

    SEARCH = "search"
    RESULTS = "results"
    ITEM = "item"
    SUB = "sub"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class State:
    """Where a customer is."""

    page: Page = Page.SEARCH
    keywords: str = ""
    number: int = 1  # of the page of results
    row: int = -1  # of the product that is looked at
    options: tuple[tuple[str, str], ...] = ()  # chosen: name and value, in the order of the first choice
    sub_page: str = ""  # of SUB_PAGES


class Shop:
    """The pages of a catalogue for one instruction."""

    def __init__(self, catalogue: Catalogue, instruction: str) -> None:
        self.catalogue = catalogue
        self.instruction = instruction

    def product(self, state: State) -> Product:
        """The product that is looked at."""
        product: Product = self.catalogue.products[state.row]
        return product

    def results(self, state: State) -> tuple[int, ...]:
        """Rows of the products on a page of results."""
        start = (state.number - 1) * PAGE_SIZE
        return self.catalogue.search(state.keywords)[start : start + PAGE_SIZE]

    def clickables(self, state: State) -> list[str]:
        """What can be clicked, in lower case, in the order of the page. "search" can, and does nothing."""
        if state.page == Page.SEARCH:
            return [SEARCH.lower()]
        if state.page == Page.RESULTS:
            shown = [self.catalogue.products[row].asin for row in self.results(state)]
            buttons = [BACK, *([PREVIOUS] if state.number > 1 else []), NEXT, *shown]
            return [button.lower() for button in buttons]
        if state.page == Page.SUB:
            return [BACK.lower(), PREVIOUS.lower()]
        if state.page == Page.DONE:
            return []
        buttons = [button.lower() for button in (BACK, PREVIOUS, *SUB_PAGES, BUY)]
        return list(dict.fromkeys([*buttons, *self._option_names(state)]))

    def _option_names(self, state: State) -> dict[str, str]:
        """The option of each value. Of two options with the same value the later one gets it."""
        return {value: name for name, values in self.product(state).options.items() for value in values}

    def next_state(self, state: State, action: str) -> State:
        """Where an action leads: the same state if it means nothing."""
        match = _ACTION.match(action)
        if match is None or state.page == Page.DONE:
            return state
        verb, argument = match[1], match[2].lower()
        if verb == "search" and argument.strip():
            return State(Page.RESULTS, argument)
        if verb == "click" and argument in self.clickables(state):
            return self._click(state, argument)
        return state

    def _click(self, state: State, button: str) -> State:
        if state.page == Page.SEARCH:
            return state
        if button == BACK.lower():
            return State()
        if state.page == Page.RESULTS:
            if button in (NEXT.lower(), PREVIOUS.lower()):
                return replace(state, number=state.number + (1 if button == NEXT.lower() else -1))
            row = next(row for row in self.results(state) if self.catalogue.products[row].asin.lower() == button)
            return replace(state, page=Page.ITEM, row=row, options=())
        if state.page == Page.SUB:
            return replace(state, page=Page.ITEM, sub_page="")
        if (name := self._option_names(state).get(button)) is not None:
            return replace(state, options=tuple({**dict(state.options), name: button}.items()))
        if button == PREVIOUS.lower():
            return replace(state, page=Page.RESULTS, row=-1, options=())
        if button == BUY.lower():
            return replace(state, page=Page.DONE)
        return replace(state, page=Page.SUB, sub_page=button)

    def text(self, state: State, score: float = 0.0) -> str:
        """What a page says.

        Args:
            state: with the page.
            score: of the purchase, for the last page.
        """
        if state.page == Page.DONE:
            return SEPARATOR.join(self._receipt(state, score))
        parts = ["Instruction:", self.instruction]
        if state.page == Page.SEARCH:
            return SEPARATOR.join(["WebShop", *parts, SEARCH])
        parts.append(BACK)
        if state.page == Page.RESULTS:
            parts += self._results_page(state)
        elif state.page == Page.ITEM:
            parts += self._item_page(state)
        else:
            parts += self._sub_page(state)
        return SEPARATOR.join(parts)

    def _results_page(self, state: State) -> list[str]:
        parts = [f"Page {state.number} (Total results: {len(self.catalogue.search(state.keywords))})"]
        parts += [PREVIOUS, NEXT] if state.number > 1 else [NEXT]
        for row in self.results(state):
            product = self.catalogue.products[row]
            parts += _visible([product.asin, product.title, product.price_tag])
        return parts

    def _item_page(self, state: State) -> list[str]:
        product = self.product(state)
        parts = [PREVIOUS]
        for name, values in product.options.items():
            parts += _visible([name, *values])
        parts += _visible([product.title, f"Price: {product.price_tag}", f"Rating: {product.rating}"])
        return [*parts, *SUB_PAGES, BUY]

    def _sub_page(self, state: State) -> list[str]:
        product = self.product(state)
        if state.sub_page == "description":
            return [PREVIOUS, *_visible([product.description])]
        # A bullet without words is there all the same.
        return [PREVIOUS, *(text.strip() for text in product.bullets if state.sub_page == "features")]

    def _receipt(self, state: State, score: float) -> list[str]:
        # The published environment's page, whose fields are empty in the text environment; the spelling is its own.
        options = json.dumps(dict(state.options), sort_keys=True)
        for letter in "<>&'":
            options = options.replace(letter, f"\\u{ord(letter):04x}")
        return [
            *("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)"),
            *("Purchased", "asin", self.product(state).asin, "options", options, "attrs", "None"),
            *("category", "None", "query", "None", "product category", "None"),
            *("Target", "asin", "options", "attrs", "price upper", "instuction text", "category", "product category"),
            *("query", "Goal", "None", "Reward", "Your score (min 0.0, max 1.0)", str(score), "Reward Details", "None"),
        ]


def _visible(texts: list[str]) -> list[str]:
    """Texts as a reader of the page sees them: stripped, and none where there is nothing."""
    return [text.strip() for text in texts if text and text != "\n"]
