"""The checkpoints of a run, of which a kill at any moment leaves the last one whole and found.

checkpoints/iteration_000010/          whole: it got this name when all of it was on the disk
checkpoints/iteration_000020.part/     being written, or left over by a kill; the next save removes it. Whole, if latest
                                       names iteration_000020: a kill came before it got its name
checkpoints/iteration_000020.replaced/ the older one of an iteration that is played again, for a moment
checkpoints/latest -> iteration_000010
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from proxmo_rllib.checkpoint_format import CheckpointError, check_whole
from proxmo_rllib.machine.disk import DiskError, disk_cause, in_mib, settle, size_of, why_not_written

_PREFIX = "iteration_"
_PART = ".part"
_REPLACED = ".replaced"
LATEST = "latest"


class Checkpoints:
    """Reads and writes the checkpoints of one run.

    Args:
        path: of their folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, iteration: int, save: Callable[[str], object], keep: int) -> Path:
        """Saves a checkpoint beside the old ones, and only then makes it the latest and drops the oldest.

        Args:
            iteration: names it.
            save: writes it, whole, into the folder that it is given.
            keep: how many to keep, this one included.

        Returns:
            The checkpoint.

        Raises:
            DiskError: the disk did not take it; nothing of it is left, and the old ones are as they were.
        """
        try:
            return self._save(iteration, save, keep)
        except DiskError:
            raise
        except OSError as error:
            raise DiskError(
                error.errno,
                f"The checkpoint of iteration {iteration} could not be put into its place: "
                f"{why_not_written(error, self.path)}.",
            ) from error

    def _save(self, iteration: int, save: Callable[[str], object], keep: int) -> Path:
        self._clean_up()
        final = self.place(iteration)
        part = final.with_name(final.name + _PART)
        old = self.newest_whole()
        try:
            save(str(part))
            check_whole(part)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if (cause := disk_cause(error)) is None:
                raise
            takes = None if old is None else f"about {in_mib(size_of(old))}"
            why = why_not_written(cause, self.path, takes)
            raise DiskError(
                cause.errno, f"The checkpoint of iteration {iteration} is not saved in {self.path}: {why}."
            ) from error
        if final.exists():  # the iteration was played again
            final.rename(final.with_name(final.name + _REPLACED))
        # First the link: were the checkpoint there before it is the latest, a kill between the two would lose it.
        self.make_latest(final)
        part.rename(final)
        settle(self.path)
        self._clean_up()
        # Those of a later iteration are of a future that is played anew.
        others = [path for path in self.whole() if path != final]
        others.sort(key=lambda path: (_iteration(path) < iteration, _iteration(path)))
        for path in others[: max(0, len(others) + 1 - keep)]:
            _drop(path)
        return final

    def place(self, iteration: int) -> Path:
        """Where the checkpoint of an iteration is, if there is one."""
        return self.path / f"{_PREFIX}{iteration:06d}"

    def make_latest(self, checkpoint: Path) -> None:
        """From now on a run goes on from this one."""
        link = self.path / f"{LATEST}{_PART}"
        link.unlink(missing_ok=True)
        link.symlink_to(checkpoint.name)
        os.replace(link, self.path / LATEST)
        settle(self.path)

    def whole(self) -> list[Path]:
        """Finished checkpoints, by iteration."""
        found = (path for path in self.path.glob(f"{_PREFIX}*") if not path.suffix and path.is_dir())
        return sorted(found, key=_iteration)

    def newest_whole(self, broken: Callable[[str], None] = lambda text: None) -> Path | None:
        """The latest checkpoint that is whole; None if there is none.

        Args:
            broken: is told of each newer one that is not.
        """
        for path in self.candidates():
            try:
                check_whole(path)
            except CheckpointError as error:
                broken(str(error))
            else:
                return path
        return None

    def candidates(self) -> Iterator[Path]:
        """What a run may go on from, the first first: the latest, then those before it, whole or not."""
        named = self._named()
        if named is not None:
            for ending in ("", _PART, _REPLACED):  # a kill came between two renames
                if (path := named.with_name(named.name + ending)).is_dir():
                    yield path
        limit = float("inf") if named is None else _iteration(named)
        yield from (path for path in reversed(self.whole()) if path != named and _iteration(path) <= limit)

    def _named(self) -> Path | None:
        """The checkpoint that is the latest by its link, whether it is there or not."""
        link = self.path / LATEST
        return self.path / os.readlink(link) if link.is_symlink() else None

    def _clean_up(self) -> None:
        """Removes what a kill left over, and brings back what it had put aside, or had not named yet."""
        named = self._named()
        if named is not None and not named.exists():
            part = named.with_name(named.name + _PART)
            if part.is_dir():
                part.rename(named)
        for aside in self.path.glob(f"{_PREFIX}*{_REPLACED}"):
            place = aside.with_suffix("")
            if place.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(place)
        for part in self.path.glob(f"*{_PART}"):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink()


def _iteration(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX).partition(".")[0]
    return int(digits) if digits.isdigit() else -1


def _drop(checkpoint: Path) -> None:
    """Removes a checkpoint; a kill meanwhile leaves what the next save removes."""
    aside = checkpoint.with_name(checkpoint.name + _PART)
    checkpoint.rename(aside)
    shutil.rmtree(aside)
