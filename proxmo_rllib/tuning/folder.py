"""A sweep's folder: what it searches, so that it can be gone on with, and what of Tune's has to be there for it.

Tune's state is pickles: to go on with a sweep is to trust whoever wrote its folder. Written for Ray 2.60; the names of
Tune's files are private to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.machine.disk import write_whole
from proxmo_rllib.storage.place import Place, open_place
from proxmo_rllib.tuning.search_spaces import search_spaces

if TYPE_CHECKING:
    from ray.tune import Tuner

    from proxmo_rllib.config import ProxMOConfig

NAME = "sweep.json"
_TUNER, _STATES = "tuner.pkl", "experiment_state-*.json"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep is of.

    Attributes:
        file: the tuned example, absolute.
        settings: what the command line changed in it.
        spaces: what is searched, in words, by setting.
        iterations: of each trial, where the command line said so.
        storage: URI of the sweep, where its trials are kept on storage and not in its folder.
    """

    file: str
    settings: Mapping[str, str]
    spaces: Mapping[str, str]
    iterations: int | None = None
    storage: str | None = None

    def write(self, folder: Path) -> None:
        """Notes it in the sweep's folder.

        Raises:
            OSError: the disk does not take it.
        """
        searched = {"file": self.file, "settings": dict(self.settings), "spaces": dict(self.spaces)}
        record = searched | {"iterations": self.iterations, "storage": self.storage}
        write_whole(folder / NAME, [json.dumps(record, indent=1)])


def in_words(space: Any) -> str:
    """A search space in words."""
    if isinstance(space, Mapping):
        return f"each of {space['grid_search']}"
    categories = getattr(space, "categories", None)
    if categories is not None:
        return f"sampled (one of {list(categories)})"
    if callable(getattr(space, "func", None)):
        return "sampled (by a function)"
    lower, upper = getattr(space, "lower", None), getattr(space, "upper", None)
    between = "" if lower is None else f" from {lower:g} to {upper:g}"
    return f"sampled ({type(space.get_sampler()).__name__.strip('_').lower()}{between})"


def spaces_in_words(config: ProxMOConfig) -> dict[str, str]:
    """What a config searches, by setting."""
    return {name: in_words(space) for name, space in search_spaces(config).items()}


def find_sweep(word: str, runs: Path, file: Path) -> tuple[Path, Sweep]:
    """The sweep that is to be gone on with.

    Args:
        word: its folder; "" for the newest of the file.
        runs: where sweeps are.
        file: the tuned example that was named.

    Raises:
        ValueError: there is none, it is no sweep, it is of another file, or its state is damaged.
    """
    folder = Path(word) if word else _newest(runs, file)
    if not folder.is_dir():
        raise ValueError(f"--resume {folder}: there is no such folder; sweeps in {runs}: {_listed(runs)}.")
    sweep = read_sweep(folder)
    recorded = Path(sweep.file)
    same = os.path.realpath(recorded) == os.path.realpath(file)
    if not same and (recorded.exists() or recorded.name != file.name):
        raise ValueError(
            f"--resume {folder}: it is a sweep of {sweep.file}, not of {file}; say: proxmo tune {sweep.file} --resume "
            f"{folder}"
        )
    if sweep.storage is not None:
        _fetch_state(open_place(sweep.storage), folder)
    _check_state(folder)
    return folder, sweep


def fetch_sweep(uri: str, folder: Path) -> Path:
    """Brings what a sweep on storage is of to this machine, to go on with it here.

    Args:
        uri: of the sweep.
        folder: where to.

    Raises:
        StorageError: it cannot be read.
        ValueError: there is no sweep.
    """
    place = open_place(uri)
    if place.below(NAME).read() is None:
        raise ValueError(f"--resume {uri}: it is no sweep that `proxmo tune` began: {NAME} is not there.")
    place.below(NAME).download(folder / NAME)
    return folder


def _fetch_state(sweep: Place, folder: Path) -> None:
    """Brings Tune's newest state of a sweep on storage, to look at it before Tune does."""
    for old in folder.glob(_STATES):
        old.unlink()
    for name in sweep.files():
        if name == _TUNER or fnmatch(name, _STATES):
            sweep.below(name).download(folder / name)


def read_sweep(folder: Path) -> Sweep:
    """What a folder says of its sweep.

    Raises:
        ValueError: it is no sweep, or what it says is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        what = "it is a run; `proxmo train FILE --resume` goes on with those" if (folder / "run.json").is_file() else ""
        raise ValueError(f"--resume {folder}: it is no sweep that `proxmo tune` began: {what or f'it has no {NAME}'}.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        iterations = record["iterations"]
        return Sweep(
            file=str(record["file"]),
            settings={str(key): str(value) for key, value in record["settings"].items()},
            spaces={str(key): str(value) for key, value in record["spaces"].items()},
            iterations=None if iterations is None else int(iterations),
            storage=record.get("storage"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: it is damaged ({type(error).__name__}: {error}); begin the sweep anew, or bring the file back."
        ) from error


def check_same_spaces(sweep: Sweep, config: ProxMOConfig, folder: Path) -> None:
    """Refuses to go on with a sweep whose file searches something else now.

    Raises:
        ValueError: naming the setting, and how it was searched and is.
    """
    now = spaces_in_words(config)
    for name in sorted(now.keys() | sweep.spaces.keys()):
        was, is_now = sweep.spaces.get(name, "not searched"), now.get(name, "not searched")
        if was != is_now:
            raise ValueError(
                f"--resume {folder}: {name} was {was}, and the file has it {is_now}. Tune goes on with what was "
                "searched: change the file back, or begin a new sweep without --resume."
            )


def _newest(runs: Path, file: Path) -> Path:
    """The newest sweep of a file."""
    found = []
    for path in runs.glob(f"*/{NAME}"):
        try:
            same = os.path.realpath(read_sweep(path.parent).file) == os.path.realpath(file)
        except ValueError:
            continue  # it is named where it is asked for
        if same:
            found.append(path)
    if not found:
        raise ValueError(f"--resume: {runs} has no sweep of {file}; sweeps there: {_listed(runs)}.")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _listed(runs: Path) -> str:
    names = sorted(path.parent.name for path in runs.glob(f"*/{NAME}"))
    return ", ".join(names[-5:]) or "none"


def _check_state(folder: Path) -> None:
    """Refuses what Tune cannot go on with, in words.

    Raises:
        ValueError: a file of Tune's is not there, or damaged; says what may help.
    """
    if not (folder / _TUNER).is_file():
        raise ValueError(f"--resume {folder}: it has no {_TUNER}: it ended before Tune began; begin it anew.")
    states = sorted(folder.glob(_STATES))
    if not states:
        raise ValueError(f"--resume {folder}: no trial had begun ({_STATES} is not there); begin it anew.")
    try:
        state = json.loads(states[-1].read_text(encoding="utf-8"))
        if not state["trial_data"] or not state["runner_data"]:
            raise ValueError("parts of it are missing")
    except (OSError, ValueError, KeyError, RecursionError, TypeError) as error:
        raise _damaged(states, error) from error


def restore_tuner(folder: Path, trainable: Any, config: Any, callbacks: list[Any]) -> Tuner:
    """Tune's own object for a sweep that is gone on with. Loads pickles of the folder.

    Args:
        folder: that `find_sweep` found whole.
        trainable: as at the sweep's beginning.
        config: with its search spaces, as at the beginning. Without it Tune cannot make a trial that had not begun.
        callbacks: in the place of those of the beginning, which had another terminal.

    Raises:
        ValueError: what Tune kept is damaged. Tune itself would begin all trials anew, and say so in its log.
    """
    from ray import tune
    from ray.tune.experiment import Trial

    states = sorted(folder.glob(_STATES))
    try:
        state = json.loads(states[-1].read_text(encoding="utf-8"))
        for trial, about in state["trial_data"]:
            Trial.from_json_state(trial, stub=True).restore_run_metadata(about)
    except Exception as error:  # a damaged pickle raises anything
        raise _damaged(states, error) from error
    try:
        place = read_sweep(folder).storage or str(folder)
        tuner = tune.Tuner.restore(place, trainable, resume_errored=True, param_space=config)
    except Exception as error:
        raise ValueError(
            f"{folder / _TUNER}: it is damaged ({type(error).__name__}: {error}); begin the sweep anew. The trials' "
            "folders stay as they are."
        ) from error
    tuner._local_tuner.get_run_config().callbacks = callbacks
    return tuner


def _damaged(states: Sequence[Path], error: Exception) -> ValueError:
    earlier = f"; without it Tune takes {states[-2].name}" if len(states) > 1 else ""
    return ValueError(
        f"{states[-1]}: Tune's state of the sweep is damaged ({type(error).__name__}: {error}). Move it away{earlier}, "
        "or begin the sweep anew; the trials' folders stay as they are."
    )
