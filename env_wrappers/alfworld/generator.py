"""New ALFWorld games from the floor plans of the alfworld package.

A game is a function of the config, the split and its index alone, so that any process can make any game by itself. It
is written as a PDDL problem and parsed like the official ones: the official engine plays it too.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache

from env_wrappers.alfworld import package, rooms
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.pddl import Placement, write_problem
from env_wrappers.alfworld.problem import TASK_TYPES, Game, parse_game
from env_wrappers.alfworld.rooms import GoalTypes, Room, can_hold, receptacle_kind
from env_wrappers.core import SPLITS, check_choice, whole_number

# Of all games, judged by what one can read in them, three fifths may be train's and one fifth each of the others'. So
# no two splits share a game, even where rooms are so small that the same one comes up twice.
_SHARES = {"train": (0, 1, 2), "valid_seen": (3,), "valid_unseen": (4,)}
_MAX_ATTEMPTS = 1000

# What follows was counted in the real games, train and valid_seen, and is in percent.
# Of the games of a task type, those in kitchens, living rooms, bedrooms and bathrooms.
_ROOM_SHARES = {
    "pick_and_place_simple": (10, 27, 30, 33),
    "look_at_obj_in_light": (0, 17, 83, 0),
    "pick_clean_then_place_in_recep": (77, 0, 0, 23),
    "pick_heat_then_place_in_recep": (100, 0, 0, 0),
    "pick_cool_then_place_in_recep": (100, 0, 0, 0),
    "pick_two_obj_and_place": (15, 26, 29, 30),
}
# Of the games of a task type, those with 1, 2, 3 and 4 objects of the goal's type.
_TARGETS = {
    "pick_and_place_simple": (37, 28, 21, 14),
    "look_at_obj_in_light": (35, 28, 21, 16),
    "pick_clean_then_place_in_recep": (32, 31, 21, 17),
    "pick_heat_then_place_in_recep": (27, 27, 25, 21),
    "pick_cool_then_place_in_recep": (44, 29, 18, 9),
    "pick_two_obj_and_place": (0, 43, 33, 24),
}
# Of the games with other objects of a type, those with 1, 2 and 3 of it. Types that are not listed come in all three
# numbers about equally often.
_COPIES = {
    "AlarmClock": (50, 32, 18),
    "Book": (49, 31, 20),
    "Box": (83, 14, 3),
    "Bread": (55, 32, 13),
    "HandTowel": (83, 17, 0),
    "Kettle": (44, 37, 19),
    "Laptop": (57, 32, 11),
    "Newspaper": (47, 31, 22),
    "Pan": (70, 26, 4),
    "Pillow": (60, 33, 7),
    "Pot": (53, 38, 9),
    "ToiletPaper": (0, 70, 30),
    "Towel": (86, 14, 0),
    "Vase": (10, 40, 50),
}
_FLOOR_SHARE = 0.04  # of these other objects, those that lie on the floor: 2% in kitchens, 5 to 6% elsewhere
# Of a receptacle that one must open first, as a place for an object, against 1 for others. So 6% (living rooms) to 26%
# (kitchens) of the objects are out of sight; in the real games it is 6 to 30%.
_CLOSED_WEIGHT = 0.2
_FURNISHINGS = ("HousePlant", "Television")  # fixtures that stand in receptacles, and are seen there


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What games to make.

    Attributes:
        seed: another seed makes other games.
        rooms: kinds of rooms, of `rooms.ROOM_KINDS`; None for all.
        task_types: of `problem.TASK_TYPES`; None for all that the rooms support.
        max_receptacles: keep at most so many of a room's receptacles, those that the goal needs among them; at least 3.
        max_objects: at most so many objects that can be picked up, those that the goal needs among them; at least 2.
    """

    seed: int = 0
    rooms: tuple[str, ...] | None = None
    task_types: tuple[str, ...] | None = None
    max_receptacles: int | None = None
    max_objects: int | None = None

    def __post_init__(self) -> None:
        check_kinds("rooms", self.rooms, rooms.ROOM_KINDS)
        check_kinds("task_types", self.task_types, TASK_TYPES)
        for name, least, why in (
            ("max_receptacles", 3, "an appliance, a destination and a place for the object to start in"),
            ("max_objects", 2, "the two objects of pick_two_obj_and_place"),
        ):
            value = getattr(self, name)
            number = whole_number(value)
            if value is not None and (number is None or number < least):
                raise ValueError(
                    f"{name}={value!r}: a game needs a number of {least} at least ({why}); raise it, or leave it None."
                )
            object.__setattr__(self, name, number)  # a plain int, of numpy's too
        for task_type in self.task_types or ():
            if not any(rooms.goals(task_type, number) for number in rooms.split_rooms("train", self.room_kinds)):
                raise ValueError(
                    f"task_types names {task_type!r}, which rooms={self.rooms} do not support; add a kind of room to "
                    f"rooms, of {', '.join(rooms.ROOM_KINDS)}, or drop the task type."
                )

    @property
    def room_kinds(self) -> tuple[str, ...]:
        return self.rooms if self.rooms is not None else rooms.ROOM_KINDS


@dataclass(frozen=True, slots=True)
class GeneratedGame:
    """A game, and the PDDL problem that it was parsed from, for the official engine."""

    game: Game
    problem: str
    room: int  # number of the floor plan
    solution: tuple[str, ...]  # commands of the player that knows everything


def check_kinds(name: str, values: object, known: tuple[str, ...]) -> None:
    """Raises ValueError unless `values` is None, or a non-empty tuple of distinct known names."""
    if values is None:
        return
    if not isinstance(values, tuple) or not values:
        raise ValueError(f"{name}={values!r}: give a tuple of names, of {', '.join(known)}, or None for all.")
    for value in values:
        check_choice(f"an entry of {name}", value, known)
    if len(set(values)) < len(values):
        raise ValueError(f"{name}={values!r} names one twice; drop the repetition.")


@lru_cache(maxsize=64)
def _places(config: GeneratorConfig, split: str) -> tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...]:
    """Task types of a split, the floor plans that support each, and weights of these."""
    numbers = rooms.split_rooms(split, config.room_kinds)
    places = []
    for task_type in config.task_types or TASK_TYPES:
        supporting = tuple(n for n in numbers if rooms.goals(task_type, n))
        if supporting:
            shares = dict(zip(rooms.ROOM_KINDS, _ROOM_SHARES[task_type], strict=True))
            kinds = [rooms.room_kind(n) for n in supporting]
            places.append((task_type, supporting, tuple(shares[kind] / kinds.count(kind) for kind in kinds)))
    if not places:
        raise ValueError(
            f"No floor plan of split {split!r} supports task_types={config.task_types} in rooms={config.rooms}; "
            "add task types or kinds of rooms."
        )
    return tuple(places)


def supports(config: GeneratorConfig, split: str) -> bool:
    """Whether a split has any floor plan for the config's task types."""
    numbers = rooms.split_rooms(split, config.room_kinds)
    return any(rooms.goals(t, n) for t in config.task_types or TASK_TYPES for n in numbers)


def generate(config: GeneratorConfig, split: str, index: int) -> GeneratedGame:
    """Make a game. Task types take turns by index, so that every stretch of indices is balanced.

    Args:
        config: which games.
        split: of `core.SPLITS`. No two splits share a game.
        index: 0 or more.

    Raises:
        ValueError: the config leaves no room for such a game.
    """
    check_choice("split", split, SPLITS)
    places = _places(config, split)
    task_type, supporting, weights = places[index % len(places)]
    for attempt in range(_MAX_ATTEMPTS):
        rng = random.Random(f"{config.seed}/{split}/{index}/{attempt}")
        room = rooms.load_room(rng.choices(supporting, weights)[0])
        goal = rng.choice(rooms.goals(task_type, room.number))
        placement = _Furnisher(config, task_type, goal, room, rng).furnish()
        if placement is None or _share(task_type, goal, placement) not in _SHARES[split]:
            continue
        problem = write_problem(f"{split}_{index:06d}", task_type, goal, room, placement)
        game = parse_game(problem, _sentence(task_type, goal, rng) + ".")
        # Solvable by construction; the player that knows everything checks it, and that it is not solved yet.
        if commands := solution(game):
            return GeneratedGame(game, problem, room.number, tuple(commands))
    raise ValueError(f"No game of type {task_type!r} for split {split!r} in {_MAX_ATTEMPTS} attempts with {config}; "
                     "allow more receptacles, objects or kinds of rooms.")  # fmt: skip


def _share(task_type: str, goal: GoalTypes, placement: Placement) -> int:
    """The fifth of all games that one belongs to: games that read the same, or would with other numbers, share it."""
    contents: dict[str, list[str]] = {receptacle: [] for receptacle in placement.receptacles}
    for thing, receptacle in placement.contents.items():
        contents[receptacle].append(thing.split("|", 1)[0])
    view = sorted([receptacle_kind(receptacle), *sorted(things)] for receptacle, things in contents.items())
    text = repr((task_type, goal.object, goal.receptacle, goal.lamp, view))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 5


def _sentence(task_type: str, goal: GoalTypes, rng: random.Random) -> str:
    template: str = rng.choice(package.goal_library().gdict[task_type]["templates"])
    return template.format(obj=goal.object.lower(), recep=goal.receptacle.lower(), toggle=goal.lamp.lower(), mrecep="")


class _Furnisher:
    """Chooses the receptacles of one game and puts objects into them."""

    def __init__(
        self, config: GeneratorConfig, task_type: str, goal: GoalTypes, room: Room, rng: random.Random
    ) -> None:
        self.config, self.task_type, self.goal, self.room, self.rng = config, task_type, goal, room, rng
        self.contents: dict[str, str] = {}  # object -> receptacle
        self.floor: dict[str, str] = {}  # object -> location
        self.openable = package.constants().OPENABLE_CLASS_SET

    def furnish(self) -> Placement | None:
        """A placement, or None where the receptacles that were drawn do not do."""
        receptacles = self._choose_receptacles()
        if receptacles is None:
            return None
        number = self.rng.choices((1, 2, 3, 4), _TARGETS[self.task_type])[0]
        room_left = self.config.max_objects
        if room_left is not None:
            number = min(number, room_left)
            room_left -= number
        for _ in range(number):
            self._place(self.goal.object, self._starts(receptacles))
        if self.goal.lamp:
            self._place(self.goal.lamp, [r for r in receptacles if r in rooms.lamp_hosts(self.room.number)])
        if room_left is None:
            self._place_furnishings(receptacles)
            for kind in sorted(rooms.FLOOR & set(self.room.object_types)):
                self._lay_on_floor(kind, receptacles)
        self._place_distractors(receptacles, room_left)
        locations = {r: self.room.receptacles[r] for r in receptacles}
        return Placement(locations, self.contents, self.floor, self._start())

    def _starts(self, receptacles: list[str]) -> list[str]:
        """Where an object of the goal's type may start.

        Never where it belongs, nor in what cleans, heats or cools it: it starts there in none of the real games.
        """
        banned = (self.goal.receptacle, *rooms.APPLIANCES.get(self.task_type, ()))
        return [
            r
            for r in receptacles
            if can_hold(receptacle_kind(r), self.goal.object) and receptacle_kind(r) not in banned
        ]

    def _choose_receptacles(self) -> list[str] | None:
        everything = sorted(self.room.receptacles)
        limit = self.config.max_receptacles
        if limit is None or limit >= len(everything):
            return everything if self._starts(everything) else None
        appliance = rooms.APPLIANCES.get(self.task_type, ("", ""))[1]
        needed = [
            self.rng.choice([r for r in everything if receptacle_kind(r) == kind])
            for kind in (self.goal.receptacle, appliance)
            if kind
        ]
        if self.goal.lamp:
            needed.append(self.rng.choice(rooms.lamp_hosts(self.room.number)))
        if not self._starts(needed):
            starts = self._starts(everything)
            if not starts:
                return None
            needed.append(self.rng.choice(starts))
        others = [r for r in everything if r not in needed]
        return sorted(needed + self.rng.sample(others, limit - len(needed)))

    def _place_furnishings(self, receptacles: list[str]) -> None:
        """Lamps, plants and televisions that the goal does not need."""
        hosts = [r for r in receptacles if receptacle_kind(r) not in rooms.HANGERS | {"Bed", "Sofa", "ArmChair"}]
        hosts = [r for r in hosts if r in rooms.lamp_hosts(self.room.number) or receptacle_kind(r) == "CounterTop"]
        for kind in ("DeskLamp", *_FURNISHINGS):
            if hosts and kind in self.room.object_types and kind != self.goal.lamp:
                self._place(kind, hosts)

    def _place_distractors(self, receptacles: list[str], limit: int | None) -> None:
        """One to three of each portable type of the room, `limit` objects in all."""
        kinds = [t for t in rooms.portable_types(self.room.number) if t != self.goal.object]
        copies = [t for t in kinds for _ in range(self.rng.choices((1, 2, 3), _COPIES.get(t))[0])]
        if limit is not None:
            self.rng.shuffle(copies)
        for kind in copies:
            if limit == 0:
                return
            hosts = [r for r in receptacles if can_hold(receptacle_kind(r), kind)]
            if limit is None and self.rng.random() < _FLOOR_SHARE:
                self._lay_on_floor(kind, receptacles)
            elif hosts:
                self._place(kind, hosts)
                limit = None if limit is None else limit - 1

    def _place(self, kind: str, hosts: list[str]) -> None:
        weights = [_CLOSED_WEIGHT if receptacle_kind(r) in self.openable else 1.0 for r in hosts]
        host = self.rng.choices(hosts, weights)[0]
        self.contents[self._new_id(kind, host)] = host

    def _lay_on_floor(self, kind: str, receptacles: list[str]) -> None:
        """Where some receptacle is, but in none, and so out of the agent's reach."""
        beside = self.rng.choice(receptacles)
        self.floor[self._new_id(kind, beside)] = self.room.receptacles[beside]

    def _new_id(self, kind: str, near: str) -> str:
        """An object's id, with a position near a receptacle."""
        x, y, z = rooms.position(near)
        while True:
            step = (self.rng.uniform(-0.4, 0.4), self.rng.uniform(0, 0.3), self.rng.uniform(-0.4, 0.4))
            thing = rooms.thor_id(kind, x + step[0], abs(y) + step[1], z + step[2])
            if thing not in self.contents and thing not in self.floor:
                return thing

    def _start(self) -> str:
        """A location of the agent that no receptacle is reached from."""
        taken = set(self.room.receptacles.values())
        while True:
            location = f"loc|{self.rng.randint(-14, 14)}|{self.rng.randint(-14, 14)}|{self.rng.randrange(4)}|30"
            if location not in taken:
                return location
