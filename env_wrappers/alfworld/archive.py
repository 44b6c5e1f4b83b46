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
from env_wrappers.cache import cache_folder

GAME_FILE = "game.tw-pddl"
_KEYS = ("path", "task", "pddl_problem")
# The task folder is named for type, object, container, receptacle (or lamp) and floor plan.
_GAME_PATH = re.compile(rf"\w+/\w+-\w+-\w+-\w*-\d+/\w+/{re.escape(GAME_FILE)}")


class Archive:
    """The records of a games file by their path."""

    def __init__(self, path: Path) -> None:
        """Open a games file, unpacking it if this machine never did.

        Raises:
            GameError: it is corrupt.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self._path = path
        self._zip_path = cache_folder() / f"alfworld-{digest}.zip"
        if not self._zip_path.exists():
            _unpack(path, self._zip_path)
        self._zip = zipfile.ZipFile(self._zip_path)

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
            for name, line in _records(path):
                archive.writestr(zipfile.ZipInfo(name), line, zipfile.ZIP_DEFLATED)
        os.chmod(temporary, 0o644)  # mkstemp lets only its user read it
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """(path of the game, line) of every record."""
    seen: set[str] = set()
    number = 0
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _name_of(line, seen, f"{path}, line {number}"), line
    except (UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        message = f"{path}, line {number + 1}: unreadable ({type(error).__name__}: {error}); get the file anew."
        raise GameError(message) from error
    if not seen:
        raise GameError(f"{path} holds no game; get the file anew.")


def _name_of(line: str, seen: set[str], place: str) -> str:
    """The path of the game in a line, checked and added to those seen. `place` is for messages."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise GameError(f"{place}: no game ({error}); get the file anew.") from error
    missing = [key for key in _KEYS if not isinstance(record, dict) or not isinstance(record.get(key), str)]
    if missing:
        raise GameError(f"{place}: the game lacks {', '.join(missing)}; get the file anew.")
    name: str = record["path"]
    if name in seen:
        raise GameError(f"{place}: the game {name!r} is there twice; get the file anew.")
    if not _GAME_PATH.fullmatch(name):
        raise GameError(f"{place}: the path {name!r} is not split/task folder/trial folder/{GAME_FILE}; get it anew.")
    seen.add(name)
    return name
