"""A run as the viewer reads it: an index of its groups first, the text of a group when it is asked for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxmo_rllib.json_lines import read_episode
from proxmo_rllib.metrics_file import metrics_of
from proxmo_rllib.record_file import Block, blocks, read_block, record_of
from proxmo_rllib.viewer.credit import credit_of_group
from proxmo_rllib.viewer.curve import learning_curve


@dataclass(slots=True)
class RecordedGroup:
    """What the index has of a group, and where its episodes stand in the record."""

    iteration: int
    name: str
    task: str
    task_type: str
    statuses: list[str] = field(default_factory=list)  # of its episodes
    turns: list[int] = field(default_factory=list)  # of its episodes
    places: list[tuple[int, int, int]] = field(default_factory=list)  # offset and size of the block, line in it


class ViewedRun:
    """Reads a run's folder, one that is still being written too. Several threads may ask.

    Args:
        run: the folder, or the file of the record.

    Attributes:
        damage: what of the record cannot be read, the place and the remedy; what stands before it is shown.

    Raises:
        ValueError: there is no record, or nothing of it can be read; names the place and the remedy.
    """

    damage: str | None = None

    def __init__(self, run: Path) -> None:
        self.record = record_of(run).absolute()
        self._lock = threading.Lock()
        self._file = self._end = self._lines = 0  # what of the record is read: its inode, bytes, lines
        self.groups: list[RecordedGroup] = []
        self._known: dict[tuple[int, str], RecordedGroup] = {}
        self.refresh()
        if self.damage is not None and not self.groups:
            raise ValueError(self.damage)

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return self.record.parent.name

    def refresh(self) -> None:
        """Reads what was written since. A record that was written anew, as when a run is resumed, is read anew."""
        with self._lock:
            found = self.record.stat()
            if found.st_ino != self._file or found.st_size < self._end:
                self._forget()
                self._file = found.st_ino
            try:
                for block in blocks(self.record, self._end):
                    self._read_block(block)
                self.damage = None
            except ValueError as error:
                self.damage = str(error)

    def index(self, wanted: Callable[[RecordedGroup], bool] | None = None) -> dict[str, Any]:
        """The run at a glance, as JSON: its curve, and columns with one entry a group.

        Args:
            wanted: says which groups; all if None.
        """
        curve, curve_damage = learning_curve(metrics_of(self.record.parent))
        with self._lock:
            groups = [group for group in self.groups if wanted is None or wanted(group)]
            damage = [words for words in (self.damage, curve_damage) if words is not None]
        tasks = {task: number for number, task in enumerate(dict.fromkeys(group.task for group in groups))}
        types = {kind: number for number, kind in enumerate(sorted({group.task_type for group in groups}))}
        statuses = {status: number for number, status in enumerate(sorted({s for g in groups for s in g.statuses}))}
        return {
            "name": self.name,
            "damage": damage,
            "curve": curve,
            "tasks": list(tasks),
            "task_types": list(types),
            "statuses": list(statuses),
            "iteration": [group.iteration for group in groups],
            "group": [group.name for group in groups],
            "task": [tasks[group.task] for group in groups],
            "task_type": [types[group.task_type] for group in groups],
            "outcomes": [[statuses[status] for status in group.statuses] for group in groups],
            "turns": [group.turns for group in groups],
        }

    def group(self, group: RecordedGroup) -> dict[str, Any]:
        """A group with all its text and its advantages, as JSON.

        Raises:
            ValueError: its place in the record is damaged, or holds something else by now.
        """
        with self._lock:
            places = list(group.places)
        read: dict[int, list[bytes]] = {}
        episodes = []
        for offset, size, number in places:
            if offset not in read:
                read[offset] = read_block(self.record, offset, size)
            where = f"{self.record}, byte {offset}"
            if number >= len(read[offset]):
                raise ValueError(f"{where} has changed since it was read; reload the page.")
            episode = _read(read[offset][number], where)
            if episode["group"] != group.name:
                raise ValueError(f"{where} has changed since it was read; reload the page.")
            episodes.append(episode)
        shown = {
            "iteration": group.iteration,
            "group": group.name,
            "task": group.task,
            "task_type": group.task_type,
            "episodes": episodes,
            "credit": credit_of_group(episodes),
        }
        return _finite(shown)  # type: ignore[no-any-return]  # a dictionary stays one

    def _read_block(self, block: Block) -> None:
        episodes = [
            _read(line, f"{self.record}, line {self._lines + number}")
            for number, line in enumerate(block.lines, start=1)
        ]
        for number, episode in enumerate(episodes):
            self._add(episode, (block.offset, block.size, number))
        self._lines += len(block.lines)
        self._end = block.offset + block.size

    def _forget(self) -> None:
        self._file = self._end = self._lines = 0
        self.groups = []
        self._known = {}

    def _add(self, episode: Mapping[str, Any], place: tuple[int, int, int]) -> None:
        key = (episode["iteration"], episode["group"])
        group = self._known.get(key)
        if group is None:
            group = RecordedGroup(*key, episode["task"], episode["task_type"])
            self._known[key] = group
            self.groups.append(group)
        group.statuses.append(episode["status"])
        group.turns.append(len(episode["turns"]))
        group.places.append(place)


def _read(line: bytes, where: str) -> dict[str, Any]:
    episode = read_episode(line, where)
    for key in ("group", "episode"):
        if not isinstance(episode.get(key), str):
            raise ValueError(f"{where} is damaged: {key} is {episode.get(key)!r:.80}")
    return episode


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have: None in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
