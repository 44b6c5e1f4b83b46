"""Writes a furnished room as a PDDL problem, as ALFRED does, so that the official engine can play it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from env_wrappers.alfworld import package, rooms
from env_wrappers.alfworld.rooms import GoalTypes, Room, can_hold, receptacle_kind

_INDENT = "\n        "
# In this order: minus signs of coordinates first, then the # that stands for the minus of PDDL's types.
_ESCAPES = (("-", "_minus_"), ("#", "-"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_"))
_ABILITIES = ("cleanable", "heatable", "coolable", "toggleable", "sliceable")


@dataclass(frozen=True, slots=True)
class Placement:
    """What differs between two games in one room. Ids are THOR's."""

    receptacles: dict[str, str]  # id -> location
    contents: dict[str, str]  # object -> receptacle
    floor: dict[str, str]  # object that lies in no receptacle -> location
    start: str  # location of the agent


def write_problem(name: str, task_type: str, goal: GoalTypes, room: Room, placement: Placement) -> str:
    """The PDDL problem of a placement and a goal.

    Args:
        name: of the problem; letters, digits and underscores.
        task_type: of `problem.TASK_TYPES`.
        goal: what the task is about.
        room: the floor plan.
        placement: receptacles, objects and the agent's start.
    """
    goal_text = (
        package.goal_library()
        .gdict[task_type]["pddl"]
        .format(obj=goal.object, recep=goal.receptacle, toggle=goal.lamp, mrecep="")
    )
    locations = sorted({*placement.receptacles.values(), placement.start})
    things = [
        *(f"{x} # object" for x in sorted([*placement.contents, *placement.floor])),
        *(f"{x} # receptacle" for x in sorted(placement.receptacles)),
        *(f"{x} # location" for x in locations),
    ]
    return (
        f"\n(define (problem plan_{name})\n(:domain alfred)\n(:objects\nagent1 - agent\n{_type_declarations()}"
        f"{_escape(_INDENT.join(things))}\n        )\n\n\n(:init{_INDENT}"
        f"{_escape(_INDENT.join(_facts(goal, placement)))}\n        )\n{_escape(goal_text)}"
    )


def _facts(goal: GoalTypes, placement: Placement) -> Iterable[str]:
    constants = package.constants()
    contents = placement.contents
    places = {thing: placement.receptacles[receptacle] for thing, receptacle in contents.items()} | placement.floor
    kinds = {thing: thing.split("|", 1)[0] for thing in places}
    receptacle_kinds = {r: receptacle_kind(r) for r in placement.receptacles}
    for receptacle, kind in receptacle_kinds.items():
        yield f"(receptacleType {receptacle} {kind}Type)"
        if kind in constants.OPENABLE_CLASS_SET:
            yield f"(openable {receptacle})"
        yield f"(receptacleAtLocation {receptacle} {placement.receptacles[receptacle]})"
    for receptacle_type in sorted(set(receptacle_kinds.values())):
        for object_type in sorted(set(kinds.values())):
            if can_hold(receptacle_type, object_type):
                yield f"(canContain {receptacle_type}Type {object_type}Type)"
    for thing, kind in kinds.items():
        yield f"(objectType {thing} {kind}Type)"
        if kind not in rooms.FIXTURES:
            yield f"(pickupable {thing})"
        if kind in constants.MOVABLE_RECEPTACLES_SET:
            yield f"(isReceptacleObject {thing})"
        for ability in _ABILITIES:
            if kind in constants.VAL_ACTION_OBJECTS[ability.capitalize()]:
                yield f"({ability} {thing})"
        if thing in contents:
            if kind == goal.object and receptacle_kinds[contents[thing]] == "Fridge":
                yield f"(isCool {thing})"
            yield f"(inReceptacle {thing} {contents[thing]})"
        yield f"(objectAtLocation {thing} {places[thing]})"
    yield f"(atLocation agent1 {placement.start})"


@cache
def _type_declarations() -> str:
    """Every type of the domain: the planner needs those that actions name, in the room or not."""
    constants = package.constants()
    fixed = rooms.fixed_receptacles()
    objects = sorted(constants.OBJECTS_SET - fixed)
    lines = [
        *(f"{t} # object" for t in objects),
        *(f"{t}Type # otype" for t in objects),
        *(f"{t}Type # rtype" for t in sorted(fixed)),
    ]
    return _escape(_INDENT.join(lines)) + _INDENT


def _escape(text: str) -> str:
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text
