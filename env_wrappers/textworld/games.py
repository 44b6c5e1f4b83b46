"""Which game a task id stands for, and the files of games that were made."""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from env_wrappers.core import PLAIN_SPLITS
from env_wrappers.textworld import make_game

DIFFICULTIES = ("easy", "normal", "hard")
MAX_TEMPORARY = 256  # games kept in the temporary folder, of 0.4 MB each
MAKING_TIMEOUT = 300.0  # seconds; a game takes two to six


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a game is made from."""

    kind: str
    seed: int
    settings: Mapping[str, Any]


def _coin_collector(rng: random.Random, difficulty: int, split: str) -> dict[str, Any]:
    # Below 100 the rooms are a line; from 101 on there are as many that lead nowhere.
    return {"level": rng.randint(2, 4) + 4 * difficulty + (100 if difficulty else 0)}


def _cooking(rng: random.Random, difficulty: int, split: str) -> dict[str, Any]:
    recipe = 1 + difficulty
    return {
        "recipe": recipe,
        "take": rng.randint(0, recipe),
        "go": (1, 6, 9)[difficulty],
        "open": rng.random() < 0.5,
        "cook": difficulty > 0 or rng.random() < 0.5,
        "cut": difficulty > 1 or rng.random() < 0.5,
        "drop": False,
        "recipe_seed": 0,
        "split": split,  # which ingredients, and how they are prepared, differs between splits
    }


def _quest(rng: random.Random, difficulty: int, split: str) -> dict[str, Any]:
    return {
        "rooms": rng.randint(2, 3) + 2 * difficulty,
        "objects": rng.randint(4, 6) + 3 * difficulty,
        "steps": rng.randint(2, 3) + 2 * difficulty,
    }


def _treasure_hunter(rng: random.Random, difficulty: int, split: str) -> dict[str, Any]:
    return {"level": rng.randint(1, 10) + 10 * difficulty}


KINDS: Mapping[str, Callable[[random.Random, int, str], dict[str, Any]]] = {
    "coin_collector": _coin_collector,
    "cooking": _cooking,
    "quest": _quest,
    "treasure_hunter": _treasure_hunter,
}


def parse_task(task: str) -> tuple[str, str]:
    """Kind and split of a task id such as "cooking/train/000012".

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\w+)/(\w+)/\d{6,}", task)
    if match is None or match[1] not in KINDS or match[2] not in PLAIN_SPLITS:
        raise ValueError(
            f"task={task!r} is no task of TextWorld; ids look like 'cooking/train/000012', and tasks(split) lists them."
        )
    return match[1], match[2]


def recipe(task: str, difficulty: str, seed: int) -> Recipe:
    """What the game of a task is made from. Raises as `parse_task`."""
    kind, split = parse_task(task)
    rng = random.Random(f"{seed}/{difficulty}/{task}")
    settings = KINDS[kind](rng, DIFFICULTIES.index(difficulty), split)
    return Recipe(kind, rng.randrange(1, 2**31), settings)


_making: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def game_file(task: str, difficulty: str, seed: int, folder: Path | None) -> Path:
    """The file of a task's game; made if it is not there.

    Args:
        task: its id.
        difficulty: of `DIFFICULTIES`.
        seed: of the generator.
        folder: where games are kept; None for a temporary folder that ends with this process.

    Raises:
        ValueError: there is no such task.
        RuntimeError: TextWorld could not make the game.
    """
    made_from = recipe(task, difficulty, seed)
    place = folder or _temporary_folder()
    path = place / f"{difficulty}-{seed}-{task.replace('/', '-')}.z8"
    with _making[path]:
        if not _whole(path):
            place.mkdir(parents=True, exist_ok=True)
            if folder is None:
                _prune(place)
            _make(made_from, path)
    return path


def _whole(path: Path) -> bool:
    """Whether the two files of a game are there, and not cut off: then it is made anew."""
    description = path.with_suffix(".json")
    if not path.is_file() or not description.is_file():
        return False
    with path.open("rb") as game, description.open("rb") as told:
        # The header of a story file of version 8 says its length, in units of eight bytes, without padding.
        length = 8 * int.from_bytes(game.read(0x1C)[0x1A:], "big")
        told.seek(0, os.SEEK_END)
        told.seek(max(0, told.tell() - 16))
        return 0 < length <= path.stat().st_size and told.read().rstrip().endswith(b"}")


def _make(made_from: Recipe, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as workshop:
        draft = Path(workshop) / path.name
        order = {"kind": made_from.kind, "seed": made_from.seed, "settings": made_from.settings, "path": str(draft)}
        done = subprocess.run(
            [sys.executable, "-P", make_game.__file__, json.dumps(order)],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            timeout=MAKING_TIMEOUT,
            check=False,
        )
        if done.returncode or not draft.exists():
            raise RuntimeError(
                f"TextWorld could not make the game of {json.dumps(order)}: {done.stderr.strip()[-500:]}. Play another "
                "task, or try the command that failed: PYTHONHASHSEED=0 python "
                f"{make_game.__file__} ORDER."
            )
        # The game itself last: who sees it finds the other beside it.
        os.replace(draft.with_suffix(".json"), path.with_suffix(".json"))
        os.replace(draft, path)


@cache
def _temporary_folder_of(pid: int) -> Path:
    folder = tempfile.mkdtemp(prefix="textworld_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _temporary_folder() -> Path:
    return _temporary_folder_of(os.getpid())


def _prune(folder: Path) -> None:
    games = sorted(folder.glob("*.z8"), key=lambda path: path.stat().st_mtime)
    for path in games[: max(0, len(games) - MAX_TEMPORARY + 1)]:
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)
