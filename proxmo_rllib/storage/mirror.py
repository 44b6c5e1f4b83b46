"""A run's folder, copied to its place on storage whenever a checkpoint is whole.

In this order, so that a kill at any moment leaves a run there that can be gone on with: metrics, episodes and notes;
the new checkpoint's files, and its list of files last; `checkpoints/latest`; only then are older checkpoints removed.
What the storage does not take is sent with the next checkpoint, or when the run ends.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from proxmo_rllib.checkpoint_format import MANIFEST
from proxmo_rllib.storage.fetch import CHECKPOINTS, LATEST, iteration_in
from proxmo_rllib.storage.place import Place, StorageError

if TYPE_CHECKING:
    from proxmo_rllib.training_run.progress import PanelScore, Progress

logger = logging.getLogger(__name__)

#: In run.json: the URI of the run.
STORED = "stored_at"
_Seen = tuple[int, int]


class Mirror:
    """Copies a run to its place, at the start, at each checkpoint, and at its end. An observer of the run.

    Args:
        place: of the run.
        folder: of the run, on this machine.
        keep: how many checkpoints are kept there.
        fetched: whether all that is in the folder now came from the place.
    """

    closing = "sending the run to its storage"
    patience_s = 1800.0

    def __init__(self, place: Place, folder: Path, keep: int, *, fetched: bool = False) -> None:
        self.place = place
        self._folder = folder
        self._keep = keep
        self._sent: dict[str, _Seen] = self._here() if fetched else {}
        self._latest = (place.below(CHECKPOINTS).below(LATEST).read() or b"").decode() if fetched else ""
        #: Why the place has not all of the run; None if it has.
        self.lacks: str | None = "nothing was sent yet"
        #: Whether anything was tried to be sent.
        self.began = False

    def on_panel(self, score: PanelScore, iteration: int) -> None:
        """What was measured goes with the next checkpoint."""

    def on_iteration(
        self, progress: Progress, metrics: Mapping[str, float | None], episodes: Sequence[Mapping[str, Any]]
    ) -> None:
        """What was measured goes with the next checkpoint."""

    def on_checkpoint(self, checkpoint: Path) -> None:
        """A checkpoint is whole on this machine."""
        self.send()

    def finish(self, failed: bool = False) -> None:
        """Sends what is left."""
        self.send()

    def send(self) -> None:
        """Copies what changed; a storage that does not take it ends nobody's run, and a warning says so."""
        told, self.began = self.lacks, True
        try:
            self._send()
        except StorageError as error:
            self.lacks = str(error)
            logger.warning("The run is not all at its storage: %s It is tried again at the next checkpoint.", error)
            return
        self.lacks = None
        if told and self._sent and told.startswith(self.place.uri):
            logger.warning("%s has all of the run again.", self.place.uri)

    def _send(self) -> None:
        here = self._here()
        new = [name for name, seen in here.items() if self._sent.get(name) != seen]
        for name in new:
            if not name.startswith(f"{CHECKPOINTS}/"):
                self._upload(name, here[name])
        for checkpoint in sorted({PurePosixPath(name).parts[1] for name in new if name.startswith(f"{CHECKPOINTS}/")}):
            self._send_checkpoint(checkpoint, here)
        latest = self._named()
        if latest is not None and latest != self._latest:
            self.place.below(CHECKPOINTS).below(LATEST).write(latest.encode())
            self._latest = latest
        self._drop_old(here)

    def _send_checkpoint(self, checkpoint: str, here: Mapping[str, _Seen]) -> None:
        """All of its files anew: one of the same iteration that is there was played otherwise."""
        prefix = f"{CHECKPOINTS}/{checkpoint}/"
        place, manifest = self.place.below(prefix.rstrip("/")), prefix + MANIFEST
        place.below(MANIFEST).delete()  # from here on it is not whole
        for name in sorted(name for name in here if name.startswith(prefix) and name != manifest):
            self._upload(name, here[name])
        there = place.files()
        listed = json.loads((self._folder / manifest).read_bytes())["files"]
        if wrong := [name for name, size in listed.items() if there.get(name) != size]:
            raise StorageError(f"{place.uri}: {wrong[0]} is not there as it was sent.")
        self._upload(manifest, here[manifest])

    def _upload(self, name: str, seen: _Seen) -> None:
        self.place.below(name).upload(self._folder / name)
        self._sent[name] = seen

    def _drop_old(self, here: Mapping[str, _Seen]) -> None:
        """Removes checkpoints that are no more here, as many as are too many: those of a dropped future first."""
        place = self.place.below(CHECKPOINTS)
        there = {PurePosixPath(name).parts[0] for name in place.files()} - {LATEST}
        mine = {PurePosixPath(name).parts[1] for name in here if name.startswith(f"{CHECKPOINTS}/")}
        newest = iteration_in(self._latest)
        others = sorted(there - mine, key=lambda name: (iteration_in(name) <= newest, iteration_in(name)))
        for name in others[: max(0, len(there) - self._keep)]:
            place.below(name).below(MANIFEST).delete()
            place.below(name).delete()
        gone = {name for name in self._sent if name not in here}
        for name in gone:
            del self._sent[name]

    def _named(self) -> str | None:
        """The checkpoint that the run goes on from."""
        link = self._folder / CHECKPOINTS / LATEST
        return os.readlink(link) if link.is_symlink() else None

    def _here(self) -> dict[str, _Seen]:
        """Size and time of each whole file of the run."""
        found: dict[str, _Seen] = {}
        for place, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.endswith((".part", ".replaced"))]
            for name in names:
                path = Path(place) / name
                if path.is_symlink() or name.endswith(".part"):
                    continue
                about = path.stat()
                found[path.relative_to(self._folder).as_posix()] = (about.st_size, about.st_mtime_ns)
        return found
