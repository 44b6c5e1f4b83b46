"""The official games: whether all of them are there and in order, and how to keep them in one compact file."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from env_wrappers.alfworld.games import FileLibrary, find_games, playable, read_game_file
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.problem import GameError
from env_wrappers.core import SPLITS
from env_wrappers.data_files import LeftOut

# Games of a split, and the SHA-256 of their ids, one a line in the order of `tasks`. Those of valid_unseen are known
# from the list that LeapLabTHU/ExpeL publishes.
OFFICIAL: Mapping[str, tuple[int, str]] = {
    "train": (3553, "4c291b47b4125c16db45ce22dd3f0512736d22a8c085bbe7380e8bba54c6de4d"),
    "valid_seen": (140, "4bf040e3d760bbe2ddefab6246e0e45f9ad038437de65cf177a07b0dda6d3e10"),
    "valid_unseen": (134, "082149de29eb379a2a8f8ba1a0e7c3978df5625121c508e130a5062ef8200ce4"),
}
# SHA-256 over lines of each game's id and the SHA-256 of its problem, in that order; valid_unseen's is unknown.
CONTENTS: Mapping[str, str] = {
    "train": "117e2dadc63da27b65415b027842814dcd54f5e619a15fb79aa4e1c460531975",
    "valid_seen": "b78798921fedb65c2f5f3f1c0f6e7333504e8666e7500751d79dea5c0544aa90",
}
_PRESET = 2  # of xz: 6 MB for 200 MB of text in three seconds; games of a room stand together for its sake

Progress = Callable[[int, int], None]  # (games done, games in all)


def _unwatched(done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SplitReport:
    """How a split compares with the official one."""

    split: str
    games: int
    official: int  # how many there should be
    ids: str  # SHA-256 of the ids, one a line in the order of `tasks`
    damaged: tuple[str, ...]  # what is wrong with which game
    contents: str = ""  # SHA-256 of their problems, see `CONTENTS`

    @property
    def finding(self) -> str:
        """In a few words; "complete" if nothing is wrong."""
        if self.damaged:
            return f"{len(self.damaged)} damaged"
        if self.games != self.official:
            return "not there" if self.games == 0 else f"{self.games} instead of {self.official}"
        if self.ids != OFFICIAL[self.split][1]:
            return "other games than the official ones"
        known = CONTENTS.get(self.split, self.contents)
        return "complete" if self.contents == known else "the official ids, with other contents"

    @property
    def complete(self) -> bool:
        return self.finding == "complete"


def verify(path: Path, progress: Progress = _unwatched) -> tuple[SplitReport, ...]:
    """Count the games, compare their ids with the official ones, parse each and win it once; 2 ms a game.

    Args:
        path: as the `games` of the environment.
        progress: is told how far it is.

    Returns:
        One report a split, of those that are not there too.

    Raises:
        FileNotFoundError: no games are there.
        GameError: a games file is damaged.
    """
    library = FileLibrary(find_games(path), None, None, {})
    tasks = {split: library.tasks(split) if split in library.sizes() else [] for split in SPLITS}
    total = sum(map(len, tasks.values()))
    done = 0
    reports = []
    for split, names in tasks.items():
        damaged = [
            f"{find_games(path) / name}: {reason}"
            for reason, broken in library.broken.items()
            for name in broken
            if name.startswith(f"{split}/")
        ]
        contents = hashlib.sha256()
        for name in names:
            try:
                problem = library.source(name).problem
                contents.update(f"{name} {hashlib.sha256(problem.encode()).hexdigest()}\n".encode())
                if solution(library.parse(name)) is None:
                    damaged.append(f"{name}: cannot be won")
            except (GameError, OSError) as error:
                damaged.append(str(error))
            done += 1
            progress(done, total)
        ids = hashlib.sha256("\n".join(names).encode()).hexdigest()
        reports.append(SplitReport(split, len(names), OFFICIAL[split][0], ids, tuple(damaged), contents.hexdigest()))
    return tuple(reports)


def convert(path: Path, target: Path, progress: Progress = _unwatched) -> int:
    """Write the games of a data folder into one games.jsonl.xz, which plays the same and is read much faster.

    Args:
        path: a folder of official games.
        target: the file to write; replaced if it is there.
        progress: is told how far it is.

    Returns:
        The number of games.

    Raises:
        FileNotFoundError: no games are there.
        ValueError: they are in one file already.
        GameError: a game is damaged.
        OSError: the file cannot be written.
    """
    root = find_games(path)
    if root.is_file():
        raise ValueError(f"{root} holds its games in one file already; delete it to have it made anew from folders.")
    left_out = LeftOut()
    names = sorted(playable(root, left_out), key=_room_first)
    if left_out.broken:
        raise GameError(f"{root} has games that cannot be read: {LeftOut(broken=left_out.broken)}. Get them anew.")
    # Written beside its place and moved there: another process sees all of it or nothing.
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "wb") as file, lzma.open(file, "wb", preset=_PRESET) as packed:
            for done, line in enumerate(_lines(root, names), start=1):
                packed.write(line.encode())
                progress(done, len(names))
        os.chmod(temporary, 0o644)  # mkstemp lets only its user read it
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return len(names)


def _room_first(name: str) -> tuple[str, str]:
    return name.split("/")[1].rpartition("-")[2], name


def _lines(root: Path, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        source = read_game_file(root / name)
        yield json.dumps({"path": name, "task": source.task, "pddl_problem": source.problem}) + "\n"
