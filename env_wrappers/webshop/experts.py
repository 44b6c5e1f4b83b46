"""Shoppers: one that knows only what it has read, and one that knows the goal.

The first is a teacher for imitation, the second the ceiling: what the best possible purchase scores.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from env_wrappers.webshop.analysis import terms
from env_wrappers.webshop.env import WebShopEnv
from env_wrappers.webshop.reward import basic_color, similarity
from env_wrappers.webshop.shop import BUY, PREVIOUS, SEPARATOR

TURNS = 15  # of an episode, as agents are usually given
RANK = 0.1  # share of the instruction's words that a title must have more, for each place further down
GOOD = 0.9  # share of the instruction's words with which a product is bought without looking further

_LIMIT = re.compile(r"(?:, and )?price lower than ([\d.]+) dollars")
_PAIR = re.compile(r"(?: with |, and )((?:(?! with )[^,:])+): ")
_PRICE = re.compile(r"\$([\d.]+)")
_EMPTY = (
    "find me made i am im looking for need want a an the and with of to in that is are it its which should be they "
    "can you show some please would like also my on by or have has at from as place order buy get us"
)
_EMPTY_WORDS = frozenset(_EMPTY.split())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an instruction asks for, as far as one reads it from its form."""

    query: str  # the instruction without the price
    limit: float  # dollars
    options: Mapping[str, str]  # by name, where the instruction names them
    words: frozenset[str]  # stems of those that tell something


def read_instruction(instruction: str) -> Wanted:
    """Read an instruction, of a synthetic goal or a person."""
    match = _LIMIT.search(instruction)
    limit = float(match[1]) if match else float("inf")
    query = (instruction[: match.start()] if match else instruction).lower().strip(" ,.")
    pairs = list(_PAIR.finditer(query)) if query.startswith("find me") else []
    ends = [*(pair.start() for pair in pairs), len(query)][1:]
    options = {pair[1].strip(): query[pair.end() : end].strip() for pair, end in zip(pairs, ends, strict=True)}
    asked = query[: pairs[0].start()] if pairs else query
    words = frozenset(terms(" ".join(word for word in asked.split() if word not in _EMPTY_WORDS)))
    return Wanted(query, limit, options, words)


@dataclass(slots=True)
class Impression:
    """What was seen of a product."""

    button: str  # its id, as it is clicked
    text: str  # all that was read of it
    choices: list[str] = field(default_factory=list)  # values to choose
    missing: int = 0  # wanted options that it does not come in
    pages: int = 0  # further pages that were read: features, description


class ReadingShopper:
    """Searches for what the instruction says, looks at the most promising products, and buys the best of them.

    It reads observations and `info["available"]`, `info["goal"]`; nothing of the goal behind them.
    """

    def __init__(self, rng: random.Random, turns: int = TURNS) -> None:
        """Make a shopper.

        Args:
            rng: draws the slips.
            turns: that it has; it buys before they are over, 8 or more.
        """
        if turns < 8:
            raise ValueError(f"turns={turns}: searching, looking, choosing options and buying take 8 or more.")
        self.rng = rng
        self.turns = turns

    def reset(self, observation: str, info: Mapping[str, Any]) -> None:
        """Begin an episode.

        Args:
            observation: of the environment's reset.
            info: of the environment's reset; the task is read from `goal`.
        """
        self.wanted = read_instruction(info["goal"])
        self._turn = 0
        self._seen: dict[str, Impression] = {}
        self._titles: dict[str, str] = {}
        self._current: Impression | None = None
        self._chosen: set[str] = set()
        self._decided = False

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next action.

        Args:
            observation: what the last action led to, whoever chose it; at first that of reset.
            info: with it; `available` is read.
        """
        self._turn += 1
        available = info["available"]
        buttons = available["clickables"]
        if available["has_search_bar"]:
            return f"search[{self.wanted.query}]"
        parts = observation.split(SEPARATOR)
        if BUY.lower() in buttons:
            return f"click[{self._on_item(parts, buttons)}]"
        if "next >" in buttons:
            return self._on_results(parts, buttons)
        if self._current is not None:
            self._current.text += " " + " ".join(parts[4:]).lower()
        return f"click[{PREVIOUS.lower()}]"

    def slip(self, info: Mapping[str, Any]) -> str:
        """What an inattentive customer might do now: anything but to buy."""
        actions: list[str] = [action for action in info["admissible_actions"] if action != f"click[{BUY.lower()}]"]
        action = self.rng.choice(actions)
        words = sorted(self.wanted.words) or ["thing"]
        return action.replace("<query>", " ".join(self.rng.sample(words, min(2, len(words)))))

    def _on_results(self, parts: Sequence[str], buttons: Sequence[str]) -> str:
        self._current, self._chosen = None, set()
        shown = self._affordable(parts, buttons)
        fresh = [button for button in shown if button not in self._seen]
        best = self._best()
        # After this turn: a look at another one takes one more, and buying takes what is wanted and two.
        hurry = self.turns - self._turn < 3 + self._clicks()
        if best is not None and (hurry or not fresh or self._decided):
            self._decided = True
            if best.button in buttons:
                return f"click[{best.button}]"
            return f"search[{self.wanted.query}]" if self._turn < self.turns else "click[back to search]"
        if fresh:
            # What the search puts first has the options too, which titles do not tell.
            return f"click[{max(fresh, key=lambda button: self._promise(button) - RANK * shown.index(button))}]"
        others = [button for button in buttons if button.upper() in parts]
        return f"click[{others[0]}]" if others else "click[next >]"

    def _affordable(self, parts: Sequence[str], buttons: Sequence[str]) -> list[str]:
        """Products on a page of results that are not too dear."""
        found = []
        for index, part in enumerate(parts[:-2]):
            if part.lower() in buttons and part == part.upper() and (price := _PRICE.search(parts[index + 2])):
                self._titles[part.lower()] = parts[index + 1].lower()
                if float(price[1]) <= self.wanted.limit:
                    found.append(part.lower())
        return found

    def _promise(self, button: str) -> float:
        return self._coverage(self._titles.get(button, ""))

    def _coverage(self, text: str) -> float:
        """Share of the words of the instruction that a text has."""
        words = self.wanted.words
        return len(words.intersection(terms(text))) / max(len(words), 1)

    def _best(self) -> Impression | None:
        """Of what was seen the one that has most of what is wanted; of equals the first."""
        return max(self._seen.values(), key=self._worth, default=None)

    def _clicks(self) -> int:
        """How many options there are to choose, at most, wherever one ends up."""
        return max([len(self.wanted.options) or 2, *(len(seen.choices) for seen in self._seen.values())])

    def _worth(self, seen: Impression) -> float:
        return self._coverage(seen.text) - 0.4 * seen.missing

    def _on_item(self, parts: Sequence[str], buttons: Sequence[str]) -> str:
        title = parts[-7].lower()
        current = next((seen for button, seen in self._seen.items() if self._titles.get(button) == title), None)
        if current is None:
            button = next((button for button, known in self._titles.items() if known == title), title)
            current = self._seen[button] = self._look(button, title, parts, buttons)
        self._current = current
        # After this turn: the way to another product and buying that.
        spare = self.turns - self._turn - 2 - self._clicks()
        if spare >= 2 and not (self._decided or current.missing or current.pages == 2 or self._good(current)):
            current.pages += 1
            return ("features", "description")[current.pages - 1]
        if spare >= 0 and not (self._good(current) or self._decided):
            return PREVIOUS.lower()
        self._decided = True
        for choice in current.choices:
            if choice not in self._chosen:
                self._chosen.add(choice)
                return choice
        return BUY.lower()

    def _good(self, seen: Impression) -> bool:
        return not seen.missing and self._coverage(seen.text) >= GOOD

    def _look(self, button: str, title: str, parts: Sequence[str], buttons: Sequence[str]) -> Impression:
        seen = Impression(button, title)
        options = _options(parts, buttons)
        if self.wanted.options:
            for name, value in self.wanted.options.items():
                exact = value if value in options.get(name, ()) else None
                if exact is None:
                    seen.missing += 1
                    exact = max(options.get(name, ()), key=lambda other: similarity(other, value), default=None)
                if exact is not None:
                    seen.choices.append(exact)
            return seen
        for values in options.values():
            named = [value for value in values if _says(self.wanted.query, value)]
            named = named or [value for value in values if _says(self.wanted.query, basic_color(value))]
            if named:
                seen.choices.append(max(named, key=len))
        return seen


class HastyShopper(ReadingShopper):
    """Buys what it sees first, and leaves options as they are: where reinforcement learning may begin."""

    def __init__(self, rng: random.Random, *, haste: float = 0.7, negligence: float = 0.35, turns: int = TURNS) -> None:
        """Make a shopper.

        Args:
            rng: draws everything.
            haste: chance that a product is good enough at a glance.
            negligence: chance that an option is forgotten.
            turns: as of `ReadingShopper`.
        """
        super().__init__(rng, turns)
        self.haste = haste
        self.negligence = negligence

    def _good(self, seen: Impression) -> bool:
        return self.rng.random() < self.haste or super()._good(seen)

    def _look(self, button: str, title: str, parts: Sequence[str], buttons: Sequence[str]) -> Impression:
        seen = super()._look(button, title, parts, buttons)
        seen.choices = [choice for choice in seen.choices if self.rng.random() >= self.negligence]
        return seen


def _options(parts: Sequence[str], buttons: Sequence[str]) -> dict[str, list[str]]:
    """Names and values of the options on a product's page."""
    options: dict[str, list[str]] = {}
    values: list[str] = []
    for part in parts[4:-7]:
        if part in buttons:
            values.append(part)
        else:
            values = options.setdefault(part, [])
    return options


def _says(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


class Oracle:
    """Buys the product that the goal was made from, with its options. It reads the goal of the environment itself."""

    def __init__(self, env: WebShopEnv) -> None:
        """Args: env: bare (`env.unwrapped`), whose goal is read."""
        self.env = env

    def reset(self, observation: str, info: Mapping[str, Any]) -> None:
        """Begin an episode. Nothing is read."""
        self._chosen: set[str] = set()

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next action."""
        goal, available = self.env.goal, info["available"]
        buttons = available["clickables"]
        row = self.env.catalogue.row_of(goal.asin)
        if available["has_search_bar"]:
            title = goal.instruction if row is None else self.env.catalogue.products[row].title
            return f"search[{title}]"
        if goal.asin.lower() in buttons:
            return f"click[{goal.asin.lower()}]"
        if BUY.lower() not in buttons:
            return "click[next >]" if "next >" in buttons else f"click[{PREVIOUS.lower()}]"
        wanted = list(goal.options.values()) if isinstance(goal.options, Mapping) else list(goal.options)
        start = buttons.index(BUY.lower()) + 1
        for value in wanted:
            if value not in self._chosen:
                self._chosen.add(value)
                best = value if value in buttons else max(buttons[start:], key=lambda b: _match(b, value), default=None)
                if best is not None:
                    return f"click[{best}]"
        return f"click[{BUY.lower()}]"


def _match(button: str, value: str) -> int:
    return similarity(basic_color(button), basic_color(value))
