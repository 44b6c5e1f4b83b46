"""The folder of a run, in which a kill at any moment loses nothing that was there.

runs/quickstart-20260102-030405/
    config.json            every setting that differs from RLlib's defaults
    run.json               what was started: file, settings, iterations and minutes so far
    metrics.jsonl          one JSON object an iteration: flat keys, numbers; iteration 0 is the evaluation before
    episodes.jsonl         recorded episodes as text, written by the algorithm
    checkpoints/iteration_000010/    as RLlib writes them, and `policy` in it for transformers and vLLM
    checkpoints/latest     a link to the newest
    summary.json           how it ended
    log.txt                what Ray, RLlib and vLLM say, and the whole story of an error
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from proxmo_rllib.training_run.json_lines import iteration_of, read_object

_PREFIX = "iteration_"
_HALF_WRITTEN = ".part"
# Set by RLlib's own validation.
_NOT_SETTINGS = frozenset({"policies", "simple_optimizer", "run_folder", "algo_class"})


class RunFolder:
    """Reads and writes the folder of one run.

    Args:
        path: of the folder; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.episodes = self.path / "episodes.jsonl"
        self.log = self.path / "log.txt"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._episodes_read = self.episodes.stat().st_size if self.episodes.exists() else 0

    @classmethod
    def of(cls, path: Path) -> RunFolder:
        """The run that a path belongs to: its folder, or one of its checkpoints.

        Raises:
            ValueError: it belongs to none.
        """
        path = path.expanduser().absolute()
        for folder in (path, *path.parents[:2]):
            if (folder / "run.json").is_file():
                return cls(folder)
        raise ValueError(f"{path} is no run folder, nor a checkpoint in one: there is no run.json.")

    def has_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "run.json").exists()

    def write_config(self, config: AlgorithmConfig) -> dict[str, Any]:
        """Writes the settings for people to read, and returns them."""
        settings = readable_config(config)
        self.write_json("config.json", settings)
        return settings

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads one of the folder's JSON files; empty if it is not there.

        Raises:
            ValueError: it is damaged.
        """
        path = self.path / name
        return read_object(path.read_bytes(), path) if path.exists() else {}

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes one of the folder's JSON files, whole or not at all."""
        _write_whole(self.path / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def add_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Appends one iteration's numbers."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics, allow_nan=False) + "\n")

    def new_episodes(self) -> Iterator[dict[str, Any]]:
        """The episodes that were recorded since the last call."""
        if not self.episodes.exists():
            return
        with self.episodes.open("rb") as file:
            file.seek(self._episodes_read)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                self._episodes_read += len(line)
                yield read_object(line, self.episodes)

    def forget_after(self, iteration: int) -> None:
        """Drops the record of iterations after this one, which a resumed run plays again."""
        for path in (self.metrics, self.episodes):
            if path.exists():
                _write_whole(path, "".join(_lines_up_to(path, iteration)))
        self._episodes_read = self.episodes.stat().st_size if self.episodes.exists() else 0

    def save_checkpoint(self, iteration: int, save: Callable[[str], object], keep: int) -> Path:
        """Saves a checkpoint beside the old ones, and only then makes it the latest and drops the oldest.

        Args:
            iteration: names it.
            save: writes it into the folder that it is given.
            keep: how many to keep, this one included.
        """
        final = self.checkpoints / f"{_PREFIX}{iteration:06d}"
        part = self.checkpoints / f"{final.name}{_HALF_WRITTEN}"
        shutil.rmtree(part, ignore_errors=True)
        save(str(part))
        replaced = self.checkpoints / f"{final.name}.replaced"
        if final.exists():  # the iteration was played again
            final.rename(replaced)
        part.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
        link = self.checkpoints / f"latest{_HALF_WRITTEN}"
        link.unlink(missing_ok=True)
        link.symlink_to(final.name)
        os.replace(link, self.checkpoints / "latest")
        # Those of a run that was resumed from an earlier one would count as newer.
        others = [path for path in self.whole_checkpoints() if path != final]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[: max(0, len(others) + 1 - keep)]:
            shutil.rmtree(path)
        return final

    def whole_checkpoints(self) -> list[Path]:
        """Finished checkpoints, by iteration."""
        return sorted(path for path in self.checkpoints.glob(f"{_PREFIX}*") if not path.suffix)

    def latest_checkpoint(self) -> Path:
        """The newest checkpoint.

        Raises:
            ValueError: there is none.
        """
        latest = self.checkpoints / "latest"
        if latest.exists():
            return latest.resolve()
        whole = self.whole_checkpoints()
        if not whole:
            raise ValueError(f"{self.path} has no checkpoint to resume from: the run ended before its first.")
        return whole[-1]


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path names: itself, or the latest one of a run folder.

    Raises:
        ValueError: it is neither.
    """
    path = path.expanduser().absolute()
    if (path / "run.json").is_file():
        return RunFolder(path).latest_checkpoint()
    if (path / "rllib_checkpoint.json").is_file():
        return path.resolve()
    raise ValueError(f"{path} is neither a checkpoint (no rllib_checkpoint.json) nor a run folder (no run.json).")


def readable_config(config: AlgorithmConfig) -> dict[str, Any]:
    """Settings that RLlib does not have, or that differ from its defaults, as JSON."""
    defaults = vars(AlgorithmConfig())
    settings = {
        key: value
        for key, value in vars(config).items()
        if not key.startswith("_")
        and key not in _NOT_SETTINGS
        and (key not in defaults or _plain(value) != _plain(defaults[key]))
    }
    return {key: _plain(value) for key, value in sorted(settings.items())}


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(entry) for entry in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    fields = getattr(value, "__dataclass_fields__", None)
    if fields:
        return {name: _plain(getattr(value, name)) for name in fields}
    return str(value)


def _lines_up_to(path: Path, iteration: int) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # A line without an end was being written when the run was killed.
            if line.endswith(b"\n") and iteration_of(line, f"{path}, line {number}") <= iteration:
                yield line.decode()


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + _HALF_WRITTEN)
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
