"""Random access to the games of one games.jsonl or games.jsonl.xz.

The file is 5 MB, its text 200 MB. It is unpacked once into an indexed zip file in the user's cache folder, named for
the file's hash, which all processes of a machine then read.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from env_wrappers.alfworld.problem import GameError
from env_wrappers.alfworld.rooms import FLOOR_PLANS
from env_wrappers.cache import cache_folder
from env_wrappers.data_files import LeftOut

GAME_FILE = "game.tw-pddl"
_MAX_COMMENT = 10_000  # bytes; a zip file takes 65,535
_KEYS = ("path", "task", "pddl_problem")
# The task folder is named for type, object, container, receptacle (or lamp) and floor plan.
_GAME_PATH = re.compile(rf"\w+/\w+-\w+-\w+-\w*-(\d+)/\w+/{re.escape(GAME_FILE)}")


class Archive:
    """The records of a games file by their path."""

    def __init__(self, path: Path) -> None:
        """Open a games file, unpacking it if this machine never did.

        A record that is no game is left out.

        Raises:
            GameError: it is corrupt, or holds no game.
        """
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise GameError(f"{path} cannot be read ({error.strerror}); mend its permissions, or its disk.") from error
        self._path = path
        self._zip_path = cache_folder() / f"alfworld-{digest}.zip"
        try:
            self._zip = zipfile.ZipFile(self._zip_path)
        except (FileNotFoundError, zipfile.BadZipFile):  # never unpacked, or half of it
            _unpack(path, self._zip_path)
            self._zip = zipfile.ZipFile(self._zip_path)
        #: The records that are no games, in words; empty if there are none.
        self.left_out = self._zip.comment.decode()

    def names(self) -> list[str]:
        """Paths of all games."""
        return self._zip.namelist()

    def read(self, name: str) -> dict[str, Any]:
        """The record of a game."""
        try:
            record: dict[str, Any] = json.loads(self._zip.read(name))
        except zipfile.BadZipFile as error:
            raise GameError(
                f"{self._zip_path} is damaged ({error}); delete it, it is made anew from {self._path}."
            ) from error
        return record


def _unpack(path: Path, target: Path) -> None:
    # Written beside its place and moved there: another process sees all of it or nothing.
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.stem)
    try:
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            left_out = LeftOut()
            for name, line in _records(path, left_out):
                archive.writestr(zipfile.ZipInfo(name), line, zipfile.ZIP_DEFLATED)
            # For the processes that read what this one has unpacked.
            archive.comment = str(left_out).encode()[:_MAX_COMMENT]
        os.chmod(temporary, 0o644)  # mkstemp lets only its user read it
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _records(path: Path, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """(path of the game, line) of every record that is a game."""
    seen: set[str] = set()
    number = 0
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                name, flaw = _name_of(line, seen)
                if flaw:
                    left_out.lose(flaw, f"line {number}{name and ', '}{name}")
                else:
                    seen.add(name)
                    yield name, line
    except (UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        message = f"{path}, line {number + 1}: unreadable ({type(error).__name__}: {error}); get the file anew."
        raise GameError(message) from error
    if not seen:
        raise GameError(f"{path} holds no game ({left_out or 'it is empty'}); get the file anew.")


def _name_of(line: str, seen: set[str]) -> tuple[str, str]:
    """The path of the game in a line, and what is wrong with its record; empty if nothing is."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "", "that are no JSON"
    missing = [key for key in _KEYS if not isinstance(record, dict) or not isinstance(record.get(key), str)]
    if missing:
        return "", f"that lack {', '.join(missing)}"
    name: str = record["path"]
    if name in seen:
        return name, "of a game that is there twice"
    if not is_game_path(name):
        return name, f"whose path is not split/task folder/trial folder/{GAME_FILE}"
    problem = record["pddl_problem"].lower()
    if "(:init" not in problem or "(:goal" not in problem:
        return name, "whose pddl_problem lacks its (:init ...) or (:goal ...)"
    return name, ""


def is_game_path(name: str) -> bool:
    """Whether a path such as train/pick_and_place_simple-Mug-None-Desk-301/trial_x/game.tw-pddl is that of a game."""
    match = _GAME_PATH.fullmatch(name)
    return match is not None and any(int(match[1]) in numbers for numbers in FLOOR_PLANS.values())
