"""An ALFWorld game as a PDDL problem, parsed once into an immutable `Game` that all its episodes share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)

_GOAL_OBJECT = re.compile(r"\(objecttype \?\w+ (\S+)\)")
_GOAL_RECEPTACLE = re.compile(r"\(receptacletype \?\w+ (\S+)\)")

# Facts that a game may hold. Another one means a domain that the engine does not know, hence a wrong game.
_PREDICATES = frozenset(
    {
        *("receptacletype", "objecttype", "cancontain", "receptacleatlocation", "objectatlocation", "atlocation"),
        *("inreceptacle", "wasinreceptacle", "inreceptacleobject", "isreceptacleobject", "isreceptacleobjectfull"),
        *("pickupable", "moveable", "openable", "cleanable", "heatable", "coolable", "toggleable", "sliceable"),
        *("opened", "isclean", "ishot", "iscool", "ison", "istoggled", "issliced", "full", "checked", "examined"),
        *("=", "distance", "total-cost"),
    }
)


class GameError(ValueError):
    """A game that cannot be read."""


class Action(NamedTuple):
    """What a command does. `target` is the thing acted on, `other` the receptacle, location or tool."""

    verb: str
    target: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """What wins a game.

    For "look_at_obj_in_light", `object_type` is to be held beside a switched-on lamp of type `lamp_type`. For all
    others, an object of `object_type` (two for "pick_two_obj_and_place"), clean, hot or cool if the task says so, is
    to be in one receptacle of `receptacle_type`.
    """

    task_type: str
    object_type: str  # e.g. "mugtype"
    receptacle_type: str | None  # e.g. "deskttype"; None for "look_at_obj_in_light"
    lamp_type: str | None  # e.g. "desklamptype"; None for all but "look_at_obj_in_light"


@dataclass(frozen=True, slots=True, eq=False)  # compared and hashed as the one object that it is
class Game:
    """One game: what never changes, and the initial facts. Ids are PDDL's, in lower case. Treat it as read-only."""

    task: str  # the instruction in words, as the game file has it
    goal: Goal
    names: Mapping[str, str]  # id -> name in the text, e.g. "cabinet 1"
    receptacle_type: Mapping[str, str]  # receptacle -> type, e.g. "cabinettype"
    object_type: Mapping[str, str]
    locations: Mapping[str, tuple[str, ...]]  # receptacle -> where the agent can stand to reach it
    receptacles_at: Mapping[str, tuple[str, ...]]  # location -> receptacles in reach, sorted by id
    can_contain: frozenset[tuple[str, str]]  # (receptacle type, object type)
    openable: frozenset[str]
    pickupable: frozenset[str]
    cleanable: frozenset[str]
    heatable: frozenset[str]
    coolable: frozenset[str]
    toggleable: frozenset[str]
    sliceable: frozenset[str]
    targets: frozenset[str]  # objects of the goal's type
    destinations: frozenset[str]  # receptacles of the goal's type
    containers: frozenset[str]  # objects that hold others, such as a bowl
    nested: tuple[tuple[str, str], ...]  # (inner object, outer object), sorted
    go_to: tuple[tuple[str, Action], ...]  # (command, action), sorted
    start: str  # location of the agent
    in_receptacle: frozenset[tuple[str, str]]  # initial (object, receptacle)
    object_at: frozenset[tuple[str, str]]  # initial (object, location)
    opened: frozenset[str]
    clean: frozenset[str]
    hot: frozenset[str]
    cool: frozenset[str]
    sliced: frozenset[str]
    toggled: frozenset[str]
    introduction: str  # the observation of reset


def parse_game(problem: str, task: str) -> Game:
    """Parse a PDDL problem of the domain "alfred".

    Args:
        problem: text of the PDDL problem.
        task: the instruction in words.

    Raises:
        GameError: it is not a problem of this domain.
    """
    text = problem.lower()
    try:
        _, rest = text.split("(:init", 1)
        init, goal_text = rest.split("(:goal", 1)
    except ValueError:
        raise GameError("the PDDL problem lacks its (:init ...) or (:goal ...) section") from None
    facts = _facts(init)
    if unknown := facts.keys() - _PREDICATES:
        raise GameError(f"the PDDL problem has the unknown predicates {sorted(unknown)}")
    if len(facts.get("atlocation", ())) != 1:
        raise GameError("the PDDL problem does not place the agent exactly once")
    goal = _goal(goal_text)
    names = _names(facts)
    try:
        return _build(facts, names, goal, task)
    except (IndexError, KeyError, ValueError) as error:
        raise GameError(f"a fact of the PDDL problem has the wrong arguments ({error})") from error


def _build(facts: Mapping[str, list[tuple[str, ...]]], names: dict[str, str], goal: Goal, task: str) -> Game:
    for predicate, count in _OF_THINGS.items():
        for fact in facts.get(predicate, ()):
            for thing in fact[:count]:
                names[thing]  # what has none cannot be shown

    def ones(predicate: str) -> frozenset[str]:
        return frozenset(fact[0] for fact in facts.get(predicate, ()))

    def pairs(predicate: str) -> list[tuple[str, str]]:
        return [(first, second) for first, second in facts.get(predicate, ())]

    places = sorted(pairs("receptacleatlocation"))
    locations: dict[str, tuple[str, ...]] = {}
    receptacles_at: dict[str, tuple[str, ...]] = {}
    for receptacle, location in places:
        locations[receptacle] = (*locations.get(receptacle, ()), location)
        receptacles_at[location] = (*receptacles_at.get(location, ()), receptacle)
    receptacle_type, object_type = dict(pairs("receptacletype")), dict(pairs("objecttype"))
    return Game(
        task=task,
        goal=goal,
        names=names,
        receptacle_type=receptacle_type,
        object_type=object_type,
        locations=locations,
        receptacles_at=receptacles_at,
        can_contain=frozenset(pairs("cancontain")),
        openable=ones("openable"),
        pickupable=ones("pickupable"),
        cleanable=ones("cleanable"),
        heatable=ones("heatable"),
        coolable=ones("coolable"),
        toggleable=ones("toggleable"),
        sliceable=ones("sliceable"),
        targets=frozenset(o for o, kind in object_type.items() if kind == goal.object_type),
        destinations=frozenset(r for r, kind in receptacle_type.items() if kind == goal.receptacle_type),
        containers=ones("isreceptacleobject"),
        nested=tuple(sorted(pairs("inreceptacleobject"))),
        go_to=tuple(sorted((f"go to {names[r]}", Action("go", r, location)) for r, location in places)),
        start=pairs("atlocation")[0][1],
        in_receptacle=frozenset(pairs("inreceptacle")),
        object_at=frozenset(pairs("objectatlocation")),
        opened=ones("opened"),
        clean=ones("isclean"),
        hot=ones("ishot"),
        cool=ones("iscool"),
        sliced=ones("issliced"),
        toggled=ones("istoggled"),
        introduction=(
            "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you "
            f"see {enumerate_names('a ' + names[r] for r, _ in places)}.\n\nYour task is to: {task}"
        ),
    )


# Predicates that say where a thing is, and how many of their first arguments are things.
_OF_THINGS = {"receptacleatlocation": 1, "objectatlocation": 1, "inreceptacle": 2, "inreceptacleobject": 2}


def enumerate_names(names: Iterable[str]) -> str:
    """ "a", "a, and b", "a, b, and c", or "nothing", as the official grammar lists things."""
    items = list(names)
    if not items:
        return "nothing"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"


def _facts(init: str) -> dict[str, list[tuple[str, ...]]]:
    if init.count(")") != init.count("(") + 1:  # one closes the section
        raise GameError("the parentheses of the PDDL problem's (:init ...) section do not match")
    facts: dict[str, list[tuple[str, ...]]] = {}
    seen: dict[str, str] = {}  # one string object an id, however many facts name it: a third of the memory
    # Facts are flat, so splitting at parentheses reads them, in half the time of a regular expression.
    for text in init.replace("(", " ").split(")"):
        predicate, *arguments = text.split() or ("",)
        if predicate:
            facts.setdefault(predicate, []).append(tuple([seen.setdefault(a, a) for a in arguments]))
    return facts


def _names(facts: Mapping[str, list[tuple[str, ...]]]) -> dict[str, str]:
    """Names as alfworld's `Demangler` gives them: of each kind, the highest number to the first id.

    Only what some fact names counts, for the official engine knows of nothing else.
    """
    entities = {argument for group in facts.values() for fact in group for argument in fact}
    kinds = {entity: _kind(entity) for entity in sorted(entities) if "_bar_" in entity}
    left = Counter(kinds.values())
    names: dict[str, str] = {}
    for entity, kind in kinds.items():
        names[entity] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind(entity: str) -> str:
    kind = entity.split("_bar_", 1)[0]
    return kind + "basin" if "basin" in entity else kind


def _goal(text: str) -> Goal:
    objects, receptacles = _GOAL_OBJECT.findall(text), _GOAL_RECEPTACLE.findall(text)
    if "istoggled" in text:
        if len(objects) != 2:
            raise GameError(f"the goal names the object types {objects}; it needs a lamp's and an object's")
        return Goal("look_at_obj_in_light", objects[1], None, objects[0])
    if not objects or not receptacles:
        raise GameError("the goal names no object type or no receptacle type")
    if len(set(objects)) > 1 or len(set(receptacles)) > 1 or "issliced" in text or "inreceptacleobject" in text:
        raise GameError("the goal is of none of the six task types (games with movable receptacles or slices are not)")
    states = {
        "isclean": "pick_clean_then_place_in_recep",
        "ishot": "pick_heat_then_place_in_recep",
        "iscool": "pick_cool_then_place_in_recep",
        "?o2": "pick_two_obj_and_place",
    }
    for word, task_type in states.items():
        if word in text:
            return Goal(task_type, objects[0], receptacles[0], None)
    return Goal("pick_and_place_simple", objects[0], receptacles[0], None)
