"""Text worlds small enough to write down every episode, and a policy over their texts.

A world is deterministic, and an episode of it ends with a success or without one; the last reward is 1 for a success
and every other 0, unless the world says otherwise. The policy is a softmax over the actions of each text, one
parameter an action: an agent without memory. Where tasks share texts they share parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from proxmo_rllib.advantages.table import FloatArray

#: Whatever a world chooses; it has a hash.
State = Any


class Step(NamedTuple):
    """What an action leads to."""

    state: State | None  # None where the episode ends
    reward: float = 0.0
    success: bool = False


@dataclass(frozen=True)
class World:
    """A world of a few states.

    Attributes:
        name: one word.
        about: what it is for, in words.
        starts: the state in which each task begins; tasks are equally frequent.
        text: what the agent reads in a state.
        actions: what it can do there.
        step: where that leads.
        good: the actions that an expert would take there; the policy's skill is how much it prefers them.
        turns: after which an episode ends without success.
    """

    name: str
    about: str
    starts: Sequence[State]
    text: Callable[[State], str]
    actions: Callable[[State], Sequence[str]]
    step: Callable[[State, str], Step]
    good: Callable[[State], Sequence[str]]
    turns: int

    @cached_property
    def parameters(self) -> Mapping[tuple[str, str], int]:
        """The place of each (text, action) in the policy's parameters."""
        places: dict[tuple[str, str], int] = {}
        for state in self._states():
            for action in self.actions(state):
                places.setdefault((self.text(state), action), len(places))
        return places

    def expert(self, skill: float) -> FloatArray:
        """The parameters of a policy that prefers what an expert does: its logit is larger by `skill`."""
        logits = np.zeros(len(self.parameters))
        for state in self._states():
            for action in self.good(state):
                logits[self.parameters[self.text(state), action]] = skill
        return logits

    def _states(self) -> Iterator[State]:
        seen: dict[State, None] = dict.fromkeys(self.starts)
        waiting = list(seen)
        while waiting:
            state = waiting.pop(0)
            yield state
            for action in self.actions(state):
                following = self.step(state, action).state
                if following is not None and following not in seen:
                    seen[following] = None
                    waiting.append(following)


def _tree() -> World:
    rooms = {
        "": "You stand in the hall. There is a door on the left and one on the right.",
        "l": "You stand in the kitchen. There is a stove and a door to the pantry.",
        "r": "You stand in the garden. There is a gate and a shed.",
        "ll": "You stand in the pantry. There is a shelf and a jar.",
        "lr": "You stand at the stove. There is a pan and a lid.",
        "rl": "You stand at the gate. There is a bell and a letter box.",
        "rr": "You stand in the shed. There is a spade and a bucket.",
    }

    def step(state: State, action: str) -> Step:
        path = state + action[0]
        if len(path) < 3:
            return Step(path)
        won = path in ("lll", "llr", "lrl")  # the first turn decides most, the last one little
        return Step(None, float(won), won)

    return World(
        "tree",
        "three forks, each place with a text of its own; the first decides most",
        [""],
        lambda state: rooms[state],
        lambda state: ["left", "right"],
        step,
        lambda state: ["left"],
        3,
    )


def _loop() -> World:
    def step(state: State, action: str) -> Step:
        if action == "answer":
            won = state >= 2
            return Step(None, float(won), won)
        return Step(state + 1 if state < 5 else None)

    return World(
        "loop",
        "the agent reads pages until it answers; two pages are enough, at six its turns are over",
        [0],
        lambda state: f"You have read {state} pages of the book.",
        lambda state: ["read on", "answer"],
        step,
        lambda state: ["read on"] if state < 2 else ["answer"],
        6,
    )


def _box() -> World:
    places = ("desk", "shelf", "box")

    def text(state: State) -> str:
        place, has_key = state
        there = {
            "desk": "On the desk 1, you see a key 1." if not has_key else "On the desk 1, you see nothing.",
            "shelf": "On the shelf 1, you see a book 1.",
            "box": "The box 1 is locked.",
        }[place]
        return there + (" You carry a key 1." if has_key else "")

    def actions(state: State) -> Sequence[str]:
        place, has_key = state
        here = {"desk": [] if has_key else ["take key 1"], "shelf": [], "box": ["unlock box 1"]}[place]
        return [f"go to {other} 1" for other in places if other != place] + here

    def step(state: State, action: str) -> Step:
        place, has_key = state
        if action.startswith("go to"):
            return Step((action.split()[2], has_key))
        if action == "take key 1":
            return Step((place, True))
        return Step(None, 1.0, True) if has_key else Step(state)

    def good(state: State) -> Sequence[str]:
        place, has_key = state
        if has_key:
            return ["unlock box 1"] if place == "box" else ["go to box 1"]
        return ["take key 1"] if place == "desk" else ["go to desk 1"]

    return World(
        "box",
        "a locked box, its key elsewhere: places are seen again, and their texts are alike",
        [("shelf", False)],
        text,
        actions,
        step,
        good,
        6,
    )


def _dials(number: int, what: str) -> tuple[State, ...]:
    return tuple((what, number, turned, True) for turned in range(number))


def _dial_text(state: State) -> str:
    what, number, turned, _ = state
    return f"You turn dial {turned + 1} of {number} of the {what}."


def _dial_step(state: State, action: str) -> Step:
    what, number, turned, right = state
    right = right and action == "red"
    if turned + 1 < number:
        return Step((what, number, turned + 1, right))
    return Step(None, float(right), right)


def _safe(name: str, about: str, *safes: tuple[str, int]) -> World:
    return World(
        name,
        about,
        [(what, number, 0, True) for what, number in safes],
        _dial_text,
        lambda state: ["red", "green", "blue"],
        _dial_step,
        lambda state: ["red"],
        max(number for _, number in safes),
    )


def _pages_with_pay() -> World:
    plain = _loop()

    def step(state: State, action: str) -> Step:
        found = plain.step(state, action)
        return found if action == "answer" else found._replace(reward=0.2)

    return World(
        "paid loop",
        "the loop, in which each page read is worth 0.2",
        plain.starts,
        plain.text,
        plain.actions,
        step,
        plain.good,
        plain.turns,
    )


#: By name, in the order of the tables.
WORLDS: Mapping[str, World] = {
    world.name: world
    for world in (
        _tree(),
        _loop(),
        _box(),
        _safe("safe", "four dials of three colours, all of which have to be right; nothing tells before", ("safe", 4)),
        _safe("two safes", "tasks of one dial and of four, no text in common", ("small safe", 1), ("large safe", 4)),
        _pages_with_pay(),
    )
}
