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
from env_wrappers.core import SPLITS, check_choice

# Of all games, judged by what one can read in them, three fifths may be train's and one fifth each of the others'. So
# no two splits share a game, even where rooms are so small that the same one comes up twice.
_SHARES = {"train": (0, 1, 2), "valid_seen": (3,), "valid_unseen": (4,)}
_MAX_ATTEMPTS = 1000

# Shares of 1, 2, 3 and 4 objects of the goal's type in the real games (two at least for pick-two).
_TARGET_WEIGHTS = {False: (0.37, 0.27, 0.22, 0.14), True: (0.0, 0.44, 0.31, 0.25)}
_SINGLE = frozenset(
    {
        *("Boots", "PaperTowelRoll", "TennisRacket", "TeddyBear", "ScrubBrush", "Plunger"),
        *("BasketBall", "BaseballBat", "Towel", "HandTowel", "WateringCan"),
    }
)
_FURNISHINGS = ("HousePlant", "Television")  # fixtures that stand in receptacles, and are seen there
_CLOSED_WEIGHT = 0.35  # of a receptacle that one must open first, as a place for an object, against 1 for others


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
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: a game needs {least} at least ({why}); raise it, or leave it None.")
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
def _places(config: GeneratorConfig, split: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Task types of a split, and the rooms that support each."""
    numbers = rooms.split_rooms(split, config.room_kinds)
    pairs = []
    for task_type in config.task_types or TASK_TYPES:
        supporting = tuple(n for n in numbers if rooms.goals(task_type, n))
        if supporting:
            pairs.append((task_type, supporting))
    if not pairs:
        raise ValueError(
            f"No floor plan of split {split!r} supports task_types={config.task_types} in rooms={config.rooms}; "
            "add task types or kinds of rooms."
        )
    return tuple(pairs)


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
    task_type, supporting = places[index % len(places)]
    for attempt in range(_MAX_ATTEMPTS):
        rng = random.Random(f"{config.seed}/{split}/{index}/{attempt}")
        room = rooms.load_room(rng.choice(supporting))
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
        self.openable = package.constants().OPENABLE_CLASS_SET

    def furnish(self) -> Placement | None:
        """A placement, or None where the receptacles that were drawn do not do."""
        receptacles = self._choose_receptacles()
        if receptacles is None:
            return None
        pair = self.task_type == "pick_two_obj_and_place"
        number = self.rng.choices((1, 2, 3, 4), _TARGET_WEIGHTS[pair])[0]
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
        self._place_distractors(receptacles, room_left)
        return Placement({r: self.room.receptacles[r] for r in receptacles}, dict(self.contents), self._start())

    def _starts(self, receptacles: list[str]) -> list[str]:
        """Where an object of the goal's type may start: never where it belongs, nor in the microwave to heat it in."""
        banned = {self.goal.receptacle}
        if self.task_type == "pick_heat_then_place_in_recep":
            banned.add("Microwave")
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
        copies = [t for t in kinds for _ in range(1 if t in _SINGLE else self.rng.randint(1, 3))]
        if limit is not None:
            self.rng.shuffle(copies)
        for kind in copies:
            if limit == 0:
                return
            hosts = [r for r in receptacles if can_hold(receptacle_kind(r), kind)]
            if hosts:
                self._place(kind, hosts)
                limit = None if limit is None else limit - 1

    def _place(self, kind: str, hosts: list[str]) -> None:
        weights = [_CLOSED_WEIGHT if receptacle_kind(r) in self.openable else 1.0 for r in hosts]
        host = self.rng.choices(hosts, weights)[0]
        x, y, z = rooms.position(host)
        while True:
            near = (self.rng.uniform(-0.4, 0.4), self.rng.uniform(0, 0.3), self.rng.uniform(-0.4, 0.4))
            thing = rooms.thor_id(kind, x + near[0], abs(y) + near[1], z + near[2])
            if thing not in self.contents:
                self.contents[thing] = host
                return

    def _start(self) -> str:
        """A location of the agent that no receptacle is reached from."""
        taken = set(self.room.receptacles.values())
        while True:
            location = f"loc|{self.rng.randint(-14, 14)}|{self.rng.randint(-14, 14)}|{self.rng.randrange(4)}|30"
            if location not in taken:
                return location
