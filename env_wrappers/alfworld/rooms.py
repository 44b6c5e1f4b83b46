"""The 120 floor plans of ALFRED: what stands in them, which split they belong to, which goals they support."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import cache

from env_wrappers.alfworld import package
from env_wrappers.alfworld.problem import TASK_TYPES

FLOOR_PLANS = {
    "kitchen": range(1, 31),
    "living_room": range(201, 231),
    "bedroom": range(301, 331),
    "bathroom": range(401, 431),
}
ROOM_KINDS = tuple(FLOOR_PLANS)
UNSEEN_PLANS = frozenset({10, 219, 308, 424})  # ALFWorld's valid_unseen
UNUSED_PLANS = frozenset({9, 29, 215, 226, 315, 325, 404, 425})  # ALFRED's test rooms, in no split of ALFWorld

LAMPS = ("DeskLamp",)  # floor lamps stand in no receptacle, so that no text game can switch one on
HANGERS = frozenset({"ToiletPaperHanger", "TowelHolder", "HandTowelHolder"})  # they hold one thing
APPLIANCES = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}

# Objects that nobody picks up. None of them but lamps, plants and televisions stands in a receptacle.
FIXTURES = frozenset(
    {
        *("Painting", "Television", "Chair", "Window", "HousePlant", "DeskLamp", "FloorLamp", "LightSwitch", "Mirror"),
        *("Blinds", "Lamp", "Sink", "StoveKnob", "Faucet", "LaundryHamperLid", "Curtains", "ShowerHead", "ShowerGlass"),
        *("ShowerDoor", "ShowerCurtain", "Bathtub", "Poster", "Footstool"),
    }
)
# Objects that one can pick up, but that lie on the floor in the real games: no command takes what is in no receptacle.
FLOOR = frozenset(("BaseballBat", "BasketBall", "Boots", "Plunger", "ScrubBrush", "TennisRacket", "WateringCan"))
# Receptacle types that openable.json leaves out, with the number that a room has which lists the type.
_OMITTED = {
    "CoffeeMachine": 1,
    "GarbageCan": 1,
    "HandTowelHolder": 1,
    "LaundryHamper": 1,
    "StoveBurner": 4,
    "Toaster": 1,
    "Toilet": 1,
    "ToiletPaperHanger": 1,
    "TowelHolder": 1,
}
# Receptacles of the real games that are missing even so: floor plan -> number. A floor plan has the same receptacles in
# all of its games. Those of the unseen plans are known from the observations that LeapLabTHU/ExpeL publishes.
# fmt: off
_MISSING = {
    "Cabinet": {
        1: 1, 10: 3, 12: 4, 13: 9, 14: 4, 15: 3, 16: 6, 17: 11, 18: 3, 19: 8, 20: 2, 23: 4, 24: 2, 25: 5, 26: 5, 27: 3,
        28: 2, 224: 1, 412: 1,
    },
    "CounterTop": {7: 1, 422: 1},
    "Drawer": {
        1: 1, 2: 4, 3: 2, 11: 1, 13: 4, 17: 6, 19: 5, 20: 1, 22: 1, 23: 1, 24: 1, 28: 2, 203: 1, 209: 1, 224: 2,
        301: 10, 302: 1, 303: 2, 304: 3, 305: 2, 308: 3, 309: 1, 316: 1, 318: 3, 322: 2, 327: 1, 329: 2, 330: 2,
        413: 4, 414: 1, 419: 2, 421: 1, 422: 2, 426: 1,
    },
    "Dresser": {330: 1},
    "HandTowelHolder": {401: 1, 405: 1, 409: 1, 410: 1, 412: 1, 415: 1, 416: 1, 418: 1, 423: 3, 424: 1, 427: 1},
    "Ottoman": {205: 1},
    "Safe": {309: 1},
    "Shelf": {
        1: 1, 211: 1, 214: 1, 302: 2, 303: 2, 304: 1, 308: 1, 319: 1, 324: 4, 327: 1, 402: 1, 403: 1, 415: 1, 429: 1,
        430: 1,
    },
    "SideTable": {329: 1},
    "SinkBasin": {418: 1, 429: 1},
    "StoveBurner": {2: 2},
    "TowelHolder": {401: 1, 403: 1, 409: 1, 410: 1, 411: 1, 420: 1, 426: 1},
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Room:
    """The fixed part of a floor plan. Receptacle ids are THOR's: type|x|y|z, in metres."""

    number: int
    kind: str
    object_types: tuple[str, ...]  # sorted; of everything in the room, receptacles too
    receptacles: dict[str, str]  # id -> location that the agent stands at, loc|x|z|rotation|horizon


@dataclass(frozen=True, slots=True)
class GoalTypes:
    """What a task is about, in THOR's type names. `receptacle` is "" for lamps' tasks, `lamp` for all others."""

    object: str
    receptacle: str
    lamp: str


def room_kind(number: int) -> str:
    """The kind of a floor plan."""
    for kind, numbers in FLOOR_PLANS.items():
        if number in numbers:
            return kind
    raise ValueError(f"FloorPlan{number} does not exist; kitchens are 1-30, living rooms 201-230, bedrooms 301-330, "
                     "bathrooms 401-430.")  # fmt: skip


@cache
def receptacle_kind(receptacle: str) -> str:
    """Type of a receptacle from its id: "Sink|..|SinkBasin" is a SinkBasin."""
    parts = receptacle.split("|")
    return parts[-1] if parts[-1] in ("SinkBasin", "BathtubBasin") else parts[0]


def thor_id(kind: str, x: float, y: float, z: float) -> str:
    """An id as THOR writes them, e.g. Desk|+02.29|+00.01|-01.15, or Sink|-02.66|+00.79|-03.07|SinkBasin."""
    numbers = (f"{'+' if v >= 0 else '-'}{abs(v):05.2f}" for v in (x, y, z))
    return "|".join([kind.removesuffix("Basin"), *numbers, *([kind] if kind.endswith("Basin") else [])])


@cache
def position(receptacle: str) -> tuple[float, float, float]:
    """x, y, z in metres from a receptacle's id."""
    x, y, z = map(float, receptacle.split("|")[1:4])
    return x, y, z


@cache
def load_room(number: int) -> Room:
    """Read a floor plan of the alfworld package."""
    folder = package.layouts_folder()
    types = json.loads((folder / f"FloorPlan{number}-objects.json").read_text(encoding="utf-8"))
    openable = json.loads((folder / f"FloorPlan{number}-openable.json").read_text(encoding="utf-8"))
    receptacles = {
        receptacle: f"loc|{round(x * 4)}|{round(z * 4)}|{rotation // 90}|{horizon}"
        for receptacle, (x, z, rotation, horizon) in openable.items()
    }
    present = {receptacle_kind(r) for r in receptacles}
    anchors = [position(r) for r in receptacles] or [(0.0, 0.0, 0.0)]
    missing = Counter({kind: _OMITTED[kind] for kind in _OMITTED.keys() & set(types) - present})
    missing.update({kind: plans[number] for kind, plans in _MISSING.items() if number in plans})
    rng = random.Random(number)  # the room itself is the same in every game
    for kind in sorted(missing):
        x0, _, z0 = rng.choice(anchors)
        for _ in range(missing[kind]):
            x, z = x0 + rng.uniform(-0.9, 0.9), z0 + rng.uniform(-0.9, 0.9)
            location = (round(x * 4) + rng.choice([-3, 3]), round(z * 4), rng.randrange(4), rng.choice([30, 45, 60]))
            receptacles[thor_id(kind, x, 0.9, z)] = "loc|{}|{}|{}|{}".format(*location)
    return Room(number, room_kind(number), tuple(sorted(types)), receptacles)


def split_rooms(split: str, kinds: tuple[str, ...] = ROOM_KINDS) -> list[int]:
    """Floor plans of a split: "train" and "valid_seen" share theirs, "valid_unseen" has ALFWorld's four."""
    unseen = split == "valid_unseen"
    return [
        number
        for kind in kinds
        for number in FLOOR_PLANS[kind]
        if (number in UNSEEN_PLANS) == unseen and number not in UNUSED_PLANS
    ]


@cache
def can_hold(receptacle_type: str, object_type: str) -> bool:
    """Whether ALFRED puts objects of a type into receptacles of a type."""
    return object_type in package.constants().VAL_RECEPTACLE_OBJECTS.get(receptacle_type, ())


@cache
def fixed_receptacles() -> frozenset[str]:
    """Receptacle types that nobody carries."""
    constants = package.constants()
    return frozenset(constants.RECEPTACLES - constants.MOVABLE_RECEPTACLES_SET)


@cache
def portable_types(number: int) -> tuple[str, ...]:
    """Types of objects that one can take from somewhere in a room and put there, sorted."""
    room = load_room(number)
    kinds = {receptacle_kind(r) for r in room.receptacles}
    return tuple(
        t
        for t in room.object_types
        if t in package.constants().OBJECTS_SET
        and t not in FIXTURES | FLOOR
        and t not in fixed_receptacles()
        and any(can_hold(kind, t) for kind in kinds)
    )


@cache
def goals(task_type: str, number: int) -> tuple[GoalTypes, ...]:
    """Every goal of a task type that a floor plan supports, in a fixed order."""
    assert task_type in TASK_TYPES
    kind = {"living_room": "LivingRoom"}.get(room_kind(number), room_kind(number).capitalize())
    if kind not in package.constants().GOALS_VALID[task_type]:
        return ()
    room = load_room(number)
    if task_type == "look_at_obj_in_light":
        lamps = [lamp for lamp in LAMPS if lamp in room.object_types and lamp_hosts(number)]
        return tuple(GoalTypes(thing, "", lamp) for thing in portable_types(number) for lamp in lamps)
    kinds = sorted({receptacle_kind(r) for r in room.receptacles})
    ability, appliance = APPLIANCES.get(task_type, (None, None))
    if appliance is not None and appliance not in kinds:
        return ()
    able = package.constants().VAL_ACTION_OBJECTS[ability] if ability else None
    found = []
    for thing in portable_types(number):
        hosts = [k for k in kinds if can_hold(k, thing)]
        for receptacle in hosts:
            single = receptacle in HANGERS and task_type == "pick_two_obj_and_place"
            elsewhere = any(k not in (receptacle, appliance) for k in hosts)  # a place for it to start in
            if (able is None or thing in able) and receptacle != appliance and not single and elsewhere:
                found.append(GoalTypes(thing, receptacle, ""))
    return tuple(found)


@cache
def lamp_hosts(number: int) -> tuple[str, ...]:
    """Receptacles of a room that a lamp may stand on."""
    kinds = ("Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable", "Shelf")
    return tuple(r for r in sorted(load_room(number).receptacles) if receptacle_kind(r) in kinds)
