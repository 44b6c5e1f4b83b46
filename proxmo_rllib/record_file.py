"""The file of recorded episodes, `episodes.jsonl.gz`: one JSON object a line, compressed, bounded, and never half read.

What an iteration records is one member of the gzip file, so that a reader finds one iteration without the others, a
kill costs at most the member that was being written, and `zcat` reads all of it. A file of plain lines, as somebody who
unpacked it has, is read too.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from proxmo_rllib.json_lines import iteration_of
from proxmo_rllib.machine.disk import LineFile, in_mib, whole_lines, write_whole
from proxmo_rllib.metrics_file import trials_in

logger = logging.getLogger(__name__)

NAME = "episodes.jsonl.gz"
#: Bytes, compressed: some tens of thousands of episodes of fifty turns.
LARGEST = 256 << 20

_MAGIC = b"\x1f\x8b\x08"
_CHUNK = 1 << 20


class Block(NamedTuple):
    """Lines that lie together in a record."""

    offset: int  # bytes before it in the file
    size: int  # bytes in the file
    lines: list[bytes]  # with their ends


class RecordFile(LineFile):
    """A record that grows: what is appended is there whole or not at all.

    When it has grown to `largest`, every second iteration of it is dropped: a long run keeps all of its newest
    iterations and ever fewer of the older ones, none of them half.

    Args:
        path: of the file; made with the first line.
        largest: bytes.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        super().__init__(path)
        self._largest = largest

    def _write(self, content: bytes) -> None:
        if self.path.exists() and self.path.stat().st_size > self._largest:
            self._thin()
        super()._write(gzip.compress(content, compresslevel=6, mtime=0))

    def _thin(self) -> None:
        iterations = sorted({iteration for block in _readable(self.path) for iteration, _ in _numbered(block)})
        dropped = set(iterations[-2::-2])
        logger.info("%s has %s: %d of its iterations are dropped.", self.path, in_mib(self._largest), len(dropped))
        keep_iterations(self.path, lambda iteration: iteration not in dropped)


class RecordFollower:
    """Hands out the lines of a record that are new since the last look, whole ones, each once.

    Args:
        path: of the record; what is in it already is not new.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.skip(-1)

    def skip(self, newest: int) -> None:
        """What is there is not new.

        Args:
            newest: its last iteration; a record that is thinned out begins anew, without a place to go on from.
        """
        self._newest = newest
        self._file, self._offset = self._state()

    def new_lines(self) -> Iterator[bytes]:
        """The new lines, with their ends. Errors as of `blocks`."""
        file, size = self._state()
        known = -1  # iterations up to this one are not new
        if file != self._file or size < self._offset:
            self._file, self._offset, known = file, 0, self._newest
        for block in blocks(self._path, self._offset) if size else ():
            self._offset = block.offset + block.size
            for line in block.lines:
                iteration = iteration_of(line, self._path)
                if iteration > known:
                    self._newest = max(self._newest, iteration)
                    yield line

    def _state(self) -> tuple[int, int]:
        """What tells a file from one that replaced it, and its size."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


def record_of(run: Path) -> Path:
    """The record that a path names: itself, or that of a run's folder.

    Raises:
        ValueError: there is none.
    """
    if run.is_file():
        return run
    for name in (NAME, NAME.removesuffix(".gz")):
        if (run / name).is_file():
            return run / name
    if sweep := trials_in(run):
        raise ValueError(sweep)
    missing = "such folder" if not run.exists() else f"{NAME} in it"
    raise ValueError(f"{run}: there is no record, no {missing}. A run writes it, unless record_groups=0.")


def blocks(path: Path, start: int = 0) -> Iterator[Block]:
    """The blocks of a record from one that begins at `start` on; what is being written is left out.

    Raises:
        ValueError: it is damaged; names the place.
    """
    yield from _members(path, start) if path.suffix == ".gz" else _plain(path, start)


def read_block(path: Path, offset: int, size: int) -> list[bytes]:
    """The lines of one block. Errors as of `blocks`."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, offset, error) from error
    return content.splitlines(keepends=True)


def record_lines(path: Path) -> Iterator[bytes]:
    """All lines of a record with their ends. Errors as of `blocks`."""
    for block in blocks(path):
        yield from block.lines


def keep_iterations(path: Path, wanted: Callable[[int], bool]) -> int:
    """Writes a record anew with some of its iterations alone, whole or not at all.

    Args:
        path: of the record.
        wanted: says of an iteration whether it stays.

    Returns:
        How many lines were damaged and so are left out.
    """
    damaged = 0

    def kept() -> Iterator[bytes]:
        nonlocal damaged
        for block in _readable(path):
            lines = _numbered(block)
            damaged += len(block.lines) - len(lines)
            content = b"".join(line for iteration, line in lines if wanted(iteration))
            if content:
                yield gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content

    write_whole(path, kept())
    return damaged


def _numbered(block: Block) -> list[tuple[int, bytes]]:
    """The lines that are whole, with their iterations."""
    found = []
    for line in block.lines:
        try:
            found.append((iteration_of(line, ""), line))
        except ValueError:
            continue
    return found


def _readable(path: Path) -> Iterator[Block]:
    """The blocks that can be read, beyond a damaged place too."""
    if path.suffix != ".gz":
        yield from _plain(path, 0)
        return
    start, size = 0, path.stat().st_size
    while start < size:
        try:
            for block in _members(path, start):
                yield block
                start = block.offset + block.size
            return
        except ValueError:
            logger.warning("%s: what stands at byte %d is damaged and left out.", path, start)
            start = _next_member(path, start + 1)


def _next_member(path: Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        place = file.read().find(_MAGIC)
        return start + place if place >= 0 else file.tell()


def _plain(path: Path, start: int) -> Iterator[Block]:
    if start == 0:
        offset = 0
        for line in whole_lines(path):
            yield Block(offset, len(line), [line])
            offset += len(line)
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line.endswith(b"\n"):
                yield Block(start, len(line), [line])
                start += len(line)


def _members(path: Path, start: int) -> Iterator[Block]:
    with path.open("rb") as file:
        file.seek(start)
        waiting = b""
        while True:
            unpacker, parts, size = zlib.decompressobj(wbits=31), [], 0
            while not unpacker.eof:
                waiting = waiting or file.read(_CHUNK)
                if not waiting:
                    return  # the end, or a member that is being written
                try:
                    parts.append(unpacker.decompress(waiting))
                except zlib.error as error:
                    raise _damaged(path, start, error) from error
                size += len(waiting) - len(unpacker.unused_data)
                waiting = unpacker.unused_data
            yield Block(start, size, b"".join(parts).splitlines(keepends=True))
            start += size


def _damaged(path: Path, offset: int, error: BaseException) -> ValueError:
    return ValueError(
        f"{path} is damaged at byte {offset}: {error}. What stands before it is whole; "
        "`proxmo train FILE --resume RUN` drops what cannot be read."
    )
