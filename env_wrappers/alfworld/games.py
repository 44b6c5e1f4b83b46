"""Where games come from: generated, the official json_2.1.1 folders, or one games.jsonl(.xz) with all of them.

A library lists task ids and loads a game by its id. All instances of an environment in a process share it, and the
games that were played last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from env_wrappers.alfworld import generator
from env_wrappers.alfworld.archive import GAME_FILE, Archive, is_game_path
from env_wrappers.alfworld.generator import GeneratorConfig
from env_wrappers.alfworld.problem import TASK_TYPES, Game, GameError, parse_game
from env_wrappers.alfworld.rooms import ROOM_KINDS, room_kind
from env_wrappers.core import SPLITS, check_choice, check_limits
from env_wrappers.data_files import LeftOut, data_path

logger = logging.getLogger(__name__)

DEFAULT_NUM_TASKS = {"train": 10_000, "valid_seen": 200, "valid_unseen": 200}

_TASK_LINE = re.compile(r'Your task is to: ([^"\\]*)"')
_NEEDED = (b'"pddl_problem"', b'"grammar"')
_SOLVABLE = re.compile(rb'"solvable"\s*:\s*true')
# What holds all games in one file, the first that is there.
GAMES_FILES = ("games.jsonl.xz", "games.jsonl")
# How the grammars of the releases word putting: 0.4 and later, and the files of 2.1.1 before the official patch.
_GRAMMARS = ("move {o} to {r}", "put {o} in/on {r}")


@dataclass(frozen=True, slots=True)
class Source:
    """What the official engine needs of a game beside the domain and the grammar of its package."""

    problem: str  # PDDL
    task: str  # the instruction in words, with one full stop, as the grammar of the package ends it


class Library(ABC):
    """Games by task id."""

    name: str  # what the games are, for messages

    @abstractmethod
    def tasks(self, split: str) -> list[str]:
        """Task ids of a split; never empty.

        Raises:
            ValueError: no such split, or no task in it.
        """

    @abstractmethod
    def source(self, task: str) -> Source:
        """The text of a game.

        Raises:
            ValueError: no such task.
            GameError: its file is corrupt.
        """

    def canonical(self, task: str) -> str:
        """The id of a task that may be named in another way."""
        return task

    def load(self, task: str) -> Game:
        """The parsed game, from a small cache if it was played lately. Raises as `source`."""
        return _load(self, self.canonical(task))

    def parse(self, task: str) -> Game:
        """The parsed game, made anew. Raises as `source`."""
        source = self.source(task)
        try:
            return parse_game(source.problem, source.task)
        except GameError as error:
            raise GameError(f"Task {task!r} of {self.name} is corrupt: {error}. Replace the file.") from error


@lru_cache(maxsize=128)  # a group's episodes reset the same few games again and again; about 10 MB
def _load(library: Library, task: str) -> Game:
    return library.parse(task)


@dataclass(frozen=True)
class GeneratedLibrary(Library):
    """Generated games, with ids such as generated/train/000123. The id and the config determine the game."""

    config: GeneratorConfig
    num_tasks: tuple[tuple[str, int], ...]
    name = "the generated games"

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, SPLITS)
        number = dict(self.num_tasks)[split]
        if number == 0 or not generator.supports(self.config, split):
            raise ValueError(
                f"Split {split!r} has no task: num_tasks is {number}, rooms={self.config.rooms}, "
                f"task_types={self.config.task_types}; raise num_tasks[{split!r}], or allow more rooms or task types."
            )
        return [f"generated/{split}/{index:06d}" for index in range(number)]

    def source(self, task: str) -> Source:
        game = self.generate(task)
        return Source(game.problem, game.game.task)

    def generate(self, task: str) -> generator.GeneratedGame:
        """Make the game of an id, whatever its index."""
        match = re.fullmatch(r"generated/(\w+)/(\d{6,})", task)
        if match is None or match[1] not in SPLITS:
            raise ValueError(
                f"task={task!r} is no generated game; ids look like 'generated/train/000123', and tasks(split) lists "
                "them. For a game of the official files pass games=PATH."
            )
        return generator.generate(self.config, match[1], int(match[2]))

    def parse(self, task: str) -> Game:
        return self.generate(task).game


class FileLibrary(Library):
    """The official games, with ids such as valid_seen/<task folder>/<trial folder>/game.tw-pddl."""

    def __init__(
        self,
        path: Path,  # of a games file or of the folder that holds the splits, as `find_games` finds it
        room_kinds: tuple[str, ...] | None,
        task_types: tuple[str, ...] | None,
        num_tasks: Mapping[str, int],
    ) -> None:
        self.name = str(path)
        self._root = path
        self._archive = Archive(path) if path.is_file() else None
        self._limits = dict(num_tasks)
        self._filter = (room_kinds, task_types)
        found = LeftOut()
        names = self._archive.names() if self._archive else list(playable(self._root, found))
        # What the path holds that is no game, in words; empty if there is nothing.
        self.left_out = self._archive.left_out if self._archive else str(found)
        self.broken = found.broken
        self._tasks: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest()):
            # In the order of their hashes, which mixes task types and is the same on every machine.
            if _wanted(name, room_kinds, task_types):
                self._tasks.setdefault(name.split("/", 1)[0], []).append(name)
        self._known = {name for tasks in self._tasks.values() for name in tasks}

    def sizes(self) -> dict[str, int]:
        """How many games each split has, of those that have any."""
        return {split: len(tasks) for split, tasks in sorted(self._tasks.items())}

    def tasks(self, split: str) -> list[str]:
        check_choice("split", split, SPLITS)
        tasks = self._tasks.get(split, [])[: self._limits.get(split)]
        if not tasks:
            raise ValueError(
                f"Split {split!r} of {self.name} has no task with rooms={self._filter[0]}, "
                f"task_types={self._filter[1]}, num_tasks={self._limits}; it has "
                f"{self.sizes()}, and left out: {self.left_out or 'none'}. Check the path, or allow more."
            )
        return list(tasks)

    def canonical(self, task: str) -> str:
        name = task.strip("/")
        return name if name.endswith(GAME_FILE) else f"{name}/{GAME_FILE}"

    def source(self, task: str) -> Source:
        name = self.canonical(task)
        if name not in self._known:
            raise ValueError(
                f"task={task!r} is not among the {len(self._known)} games of {self.name}; tasks(split) lists them. "
                "A task is named by its path below the data folder, such as "
                "'valid_seen/<task folder>/<trial folder>/game.tw-pddl'."
            )
        if self._archive:
            record = self._archive.read(name)
            return Source(record["pddl_problem"], _sentence(record["task"]))
        return read_game_file(self._root / name)


def open_library(
    games: str | os.PathLike[str] | None,
    config: GeneratorConfig,
    num_tasks: Mapping[str, int] | None,
) -> Library:
    """The library for the arguments of an environment; the same object for the same arguments.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: arguments that do not go together.
    """
    limits = check_limits(num_tasks, SPLITS, least=0)
    if games is None:
        return GeneratedLibrary(config, tuple(sorted((DEFAULT_NUM_TASKS | limits).items())))
    for name in ("max_receptacles", "max_objects"):
        if (value := getattr(config, name)) is not None:
            raise ValueError(
                f"{name}={value} changes games, so it is for generated ones; drop it, or drop games={games!r}."
            )
    path = data_path("games", games)
    if not path.exists():
        raise FileNotFoundError(
            f"games={games!r}: {path.absolute()} does not exist. Give the folder that alfworld-download made, a "
            "games.jsonl or games.jsonl.xz, or leave games out for generated ones."
        )
    return _open_files(find_games(path.resolve()), config.rooms, config.task_types, tuple(sorted(limits.items())))


@cache
def _open_files(
    path: Path, rooms: tuple[str, ...] | None, task_types: tuple[str, ...] | None, limits: tuple[tuple[str, int], ...]
) -> Library:
    library = FileLibrary(path, rooms, task_types, dict(limits))
    if library.left_out:
        logger.warning("%s: %d games, and left out: %s.", path, sum(library.sizes().values()), library.left_out)
    return library


def find_games(path: Path) -> Path:
    """Where the games of a path are: a games.jsonl(.xz), or the folder that holds train, valid_seen and valid_unseen.

    Args:
        path: either of the two, or the folder that holds it, as alfworld-download makes one. A games file in it goes
            first, since it is read a hundred times faster; of several json_2.1.x the newest that has games.

    Raises:
        FileNotFoundError: no games are there.
    """
    if path.is_file():
        return path
    for name in GAMES_FILES:
        if (path / name).is_file():
            return path / name
    for root in (path, *sorted(path.glob("json_2.1.*"), reverse=True)):
        if any(True for split in SPLITS for _ in (root / split).glob(f"*/*/{GAME_FILE}")):
            return root
    raise FileNotFoundError(
        f"{path} holds no ALFWorld games: neither a {' nor a '.join(GAMES_FILES)}, nor, in it or in a json_2.1.1, a "
        f"folder {', '.join(SPLITS)} with games. Run alfworld-download, or give another path."
    )


def playable(root: Path, left_out: LeftOut) -> Iterable[str]:
    """Names of the games below a folder that the official loader would take: solvable ones of the six task types.

    Args:
        root: the folder that holds the splits.
        left_out: is told what else is there, but for games that are known to be unsolvable or of another type, as many
            of the official ones are.
    """
    for split in SPLITS:
        for path in sorted((root / split).glob(f"*/*/{GAME_FILE}")):
            name = path.relative_to(root).as_posix()
            if not is_game_path(name):
                left_out.skip("in folders that are not named as those of a game", name)
            elif _wanted(name, None, None):
                yield from _solvable(path, name, left_out)


def _solvable(path: Path, name: str, left_out: LeftOut) -> Iterable[str]:
    try:
        text = path.read_bytes()
    except OSError as error:
        left_out.lose(f"unreadable: {error.strerror}", name)
        return
    if not text.rstrip().endswith(b"}") or any(key not in text for key in _NEEDED):
        left_out.lose(f"damaged: cut off, or without {', '.join(key.decode() for key in _NEEDED)}", name)
    elif _SOLVABLE.search(text):
        yield name
    elif b'"solvable"' not in text:
        # The official loader skips them too.
        left_out.skip('without the key "solvable", which says whether they can be won; get them anew', name)


def _wanted(name: str, room_kinds: tuple[str, ...] | None, task_types: tuple[str, ...] | None) -> bool:
    """Whether a path such as valid_seen/look_at_obj_in_light-CD-None-DeskLamp-301/... passes the filters."""
    task_type, _, rest = name.split("/")[1].partition("-")
    if task_type not in (task_types or TASK_TYPES) or "movable" in name or "Sliced" in name:
        return False
    return room_kind(int(rest.rpartition("-")[2])) in (room_kinds or ROOM_KINDS)


def read_game_file(path: Path) -> Source:
    """What a game.tw-pddl says, of release 2.1.1 or later.

    Raises:
        GameError: it is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        problem, grammar = record["pddl_problem"], record["grammar"]
        if not isinstance(problem, str) or not isinstance(grammar, str):
            raise TypeError("pddl_problem and grammar are to be texts")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GameError(f"{path} is no game file ({type(error).__name__}: {error}); download it again.") from error
    except OSError as error:
        raise GameError(f"{path} cannot be read ({error.strerror}); mend its permissions, or its disk.") from error
    # The text of a 2.1.1 file differs from today's in one verb only, and the engine speaks today's: reading the task
    # and the problem and nothing else is the upgrade that the official patch makes.
    if not any(template in grammar for template in _GRAMMARS):
        raise GameError(f"{path} has a grammar of neither release ({' or '.join(_GRAMMARS)}); download it again.")
    match = _TASK_LINE.search(grammar)
    if match is None:
        raise GameError(f"The grammar of {path} names no task ('Your task is to: ...'); download it again.")
    return Source(problem, _sentence(match[1]))


def _sentence(task: str) -> str:
    """A task with one full stop: the official grammar sets it, and only some records repeat it."""
    return task.rstrip(" .") + "."
