"""Panels: fixed lists of tasks that agents are evaluated on, named, versioned and hashed.

A success rate on randomly drawn tasks moves by points from one draw to the next. One on all tasks of a panel is
comparable between runs and machines, and the digest says whether it was the same panel.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium

from env_wrappers.core import check_choice, whole_number
from env_wrappers.data_files import data_path

# Arguments that say where data lies or how it is played, not what is played: the same panel on another machine.
_LOCAL_ARGUMENTS = frozenset({"games", "catalogue", "engine", "folder", "render_mode", "reward"})


@dataclass(frozen=True, slots=True)
class Panel:
    """A list of tasks of one environment.

    Attributes:
        name: what one calls it.
        version: raised when its tasks, or the games behind them, change.
        env_id: what `gymnasium.make` makes.
        env_kwargs: arguments of the environment.
        tasks: ids, in the order of evaluation.
        digest: SHA-256 of all of these but the name, the version and where the data lies, in hexadecimal.
    """

    name: str
    version: int
    env_id: str
    env_kwargs: Mapping[str, Any]
    tasks: tuple[str, ...]
    digest: str = ""

    def __post_init__(self) -> None:
        # As JSON has them, so that a panel that was written and read is the same.
        object.__setattr__(self, "env_kwargs", json.loads(json.dumps(dict(self.env_kwargs), default=_plain)))
        digest = _digest(self.env_id, self.env_kwargs, self.tasks)
        if self.digest not in ("", digest):
            raise ValueError(
                f"Panel {self.name!r} has the digest {digest}, not {self.digest}: its tasks or arguments have changed. "
                "Results on it are not comparable; get the original, or give it another name or version."
            )
        object.__setattr__(self, "digest", digest)

    def __len__(self) -> int:
        return len(self.tasks)

    def make(self) -> gymnasium.Env[str, str]:
        """The environment that its tasks belong to."""
        return gymnasium.make(self.env_id, **self.env_kwargs)

    def content_digest(self) -> str:
        """SHA-256 of what the tasks begin with, in hexadecimal: tells a change of the games behind unchanged ids.

        Resets every task once.
        """
        env = self.make()
        sha = hashlib.sha256()
        for task in self.tasks:
            observation, info = env.reset(options={"task": task})
            sha.update(json.dumps([task, observation, info.get("goal", ""), info.get("task_type", "")]).encode())
        return sha.hexdigest()

    def to_json(self) -> str:
        """The panel as one JSON object; `from_json` reads it."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Panel:
        """Read a panel.

        Raises:
            ValueError: it is damaged, or its digest does not fit.
        """
        try:
            record = json.loads(text)
            if not isinstance(record["env_kwargs"], dict) or not isinstance(record["tasks"], list):
                raise TypeError("env_kwargs is to be an object, and tasks a list")
            words = [record["name"], record["env_id"], record.get("digest", ""), *record["tasks"]]
            if not all(isinstance(word, str) for word in words) or not isinstance(record["version"], int):
                raise TypeError("name, env_id, digest and tasks are to be texts, and version a whole number")
            return cls(**{**record, "tasks": tuple(record["tasks"])})
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"No panel: {type(error).__name__}: {error}. Write one with Panel.to_json.") from error


def panel_from_split(
    env: gymnasium.Env[str, str], split: str, size: int | None = None, seed: int = 0, name: str | None = None
) -> Panel:
    """A panel of tasks drawn from a split, the same on every machine.

    Args:
        env: made by `gymnasium.make`, wrapped or not.
        split: one that `env.tasks` knows.
        size: number of tasks; None for all.
        seed: of the draw.
        name: by default made of the rest.
    """
    if env.spec is None:
        raise ValueError(f"{env} was not made by gymnasium.make, so nobody could make it again; register and make it.")
    tasks = list(env.get_wrapper_attr("tasks")(split))
    if size is not None:
        if not 0 < size <= len(tasks):
            raise ValueError(
                f"size={size}: split {split!r} of {env.spec.id} has {len(tasks)} tasks; give 1 to that many."
            )
        tasks = random.Random(seed).sample(tasks, size)
    name = name or f"{env.spec.id.rsplit('/', 1)[-1]}-{split}-{len(tasks)}-seed{seed}"
    return Panel(name, 1, env.spec.id, dict(env.spec.kwargs), tuple(tasks))


def panel_names() -> tuple[str, ...]:
    """Names that `named_panel` knows."""
    return tuple(_NAMED)


def named_panel(name: str, **env_kwargs: Any) -> Panel:
    """One of the panels of this package.

    Args:
        name: of `panel_names()`.
        **env_kwargs: where the data lies and how it is played, e.g. games=PATH for the official games (by default
            $ALFWORLD_DATA), catalogue=PATH for the official products (by default $WEBSHOP_DATA), engine="textworld".

    Raises:
        ValueError: no such panel, or the data is not the official one.
        FileNotFoundError: the data is not there.
    """
    check_choice("panel", name, panel_names())
    if changed := env_kwargs.keys() - _LOCAL_ARGUMENTS:
        raise ValueError(
            f"{sorted(changed)} would change the tasks of panel {name!r}; make your own with panel_from_split."
        )
    return _NAMED[name](name, env_kwargs)


def find_panel(word: str, **env_kwargs: Any) -> Panel:
    """The panel that a word names: one of this package's, or a JSON file that `Panel.to_json` wrote.

    Args:
        word: of `panel_names()`, or a path.
        **env_kwargs: of `named_panel`.

    Raises:
        ValueError: it names none, or the file holds none.
        FileNotFoundError: the panel's data is not there.
    """
    if word in _NAMED:
        return named_panel(word, **env_kwargs)
    path = data_path("panel", word)
    if not os.path.isfile(path):
        raise ValueError(
            f"panel={word!r}: neither a panel of the package ({', '.join(_NAMED)}) nor a file that Panel.to_json wrote."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"panel={word!r} is no text ({error}). Write one with Panel.to_json.") from error
    return Panel.from_json(text)


def _alfworld_official(split: str, size: int, digest: str) -> Callable[[str, dict[str, Any]], Panel]:
    def build(name: str, env_kwargs: dict[str, Any]) -> Panel:
        if "games" not in env_kwargs and "ALFWORLD_DATA" not in os.environ:
            raise FileNotFoundError(
                f"Panel {name!r} needs the official games: pass games=PATH, or set ALFWORLD_DATA to the folder that "
                "alfworld-download made."
            )
        env_kwargs = {"games": "$ALFWORLD_DATA"} | _only(env_kwargs, "games", "engine")
        env = gymnasium.make("env_wrappers/ALFWorld-v0", **env_kwargs)
        tasks = env.get_wrapper_attr("tasks")(split)
        if len(tasks) != size:
            raise ValueError(
                f"Panel {name!r} has {size} tasks, and {env_kwargs['games']} {len(tasks)} of split {split!r}: it is "
                "not the official data, or not all of it. Run alfworld-download again."
            )
        return Panel(name, 1, "env_wrappers/ALFWorld-v0", env_kwargs, tuple(tasks), digest)

    return build


def _alfworld_generated(split: str, size: int, digest: str) -> Callable[[str, dict[str, Any]], Panel]:
    def build(name: str, env_kwargs: dict[str, Any]) -> Panel:
        tasks = tuple(f"generated/{split}/{index:06d}" for index in range(size))
        return Panel(name, 2, "env_wrappers/ALFWorld-v0", {"seed": 0} | _only(env_kwargs, "engine"), tasks, digest)

    return build


def _webshop_official(kind: str, goals: int, size: int, digest: str) -> Callable[[str, dict[str, Any]], Panel]:
    def build(name: str, env_kwargs: dict[str, Any]) -> Panel:
        if "catalogue" not in env_kwargs and "WEBSHOP_DATA" not in os.environ:
            raise FileNotFoundError(
                f"Panel {name!r} needs the official products: pass catalogue=PATH, or set WEBSHOP_DATA to the folder "
                "with the files (`proxmo data webshop` says which)."
            )
        fixed = {"catalogue": "$WEBSHOP_DATA", "goals": kind, "division": "published"}
        env_kwargs = fixed | _only(env_kwargs, "catalogue", "reward")
        env = gymnasium.make("env_wrappers/WebShop-v0", **env_kwargs)
        found = len(env.get_wrapper_attr("catalogue").pairs[kind])
        if found != goals:
            raise ValueError(
                f"Panel {name!r} is of {goals:,} {kind} goals, and {env_kwargs['catalogue']} has {found:,}: it is not "
                "the official data, or other files of it. Get them again, or make a panel with panel_from_split."
            )
        tasks = tuple(env.get_wrapper_attr("tasks")("test")[:size])
        return Panel(name, 1, "env_wrappers/WebShop-v0", env_kwargs, tasks, digest)

    return build


def _webshop_generated(size: int, digest: str) -> Callable[[str, dict[str, Any]], Panel]:
    def build(name: str, env_kwargs: dict[str, Any]) -> Panel:
        tasks = tuple(f"synthetic/{index:06d}" for index in range(size))
        fixed = {"seed": 0, "num_products": 1000, "goals": "synthetic", "division": "published"}
        return Panel(name, 1, "env_wrappers/WebShop-v0", fixed | _only(env_kwargs, "reward"), tasks, digest)

    return build


def _of_split(env_id: str, split: str, size: int, digest: str) -> Callable[[str, dict[str, Any]], Panel]:
    """The first tasks of a split, of an environment that brings its tasks."""

    def build(name: str, env_kwargs: dict[str, Any]) -> Panel:
        env_kwargs = _only(env_kwargs, *(("folder",) if env_id == "env_wrappers/TextWorld-v0" else ()))
        env = gymnasium.make(env_id, **env_kwargs)
        tasks = tuple(env.get_wrapper_attr("tasks")(split)[:size])
        env.close()
        return Panel(name, 1, env_id, env_kwargs, tasks, digest)

    return build


def _only(env_kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Of the arguments those that the panel's environment takes: where other data lies does not matter to it."""
    return {key: value for key, value in env_kwargs.items() if key in (*names, "render_mode")}


_NAMED: Mapping[str, Callable[[str, dict[str, Any]], Panel]] = {
    "alfworld-generated-unseen-200": _alfworld_generated(
        "valid_unseen", 200, "dde7fdaa3825c88324b00d52fc4cdde6880b89d4177b21212c2b90453e333264"
    ),
    "alfworld-seen-140": _alfworld_official(
        "valid_seen", 140, "54de4acb2fef6a374246b740badb032ebd609900f32029e8dc23f022d3966488"
    ),
    # Its ids are known from the list that LeapLabTHU/ExpeL publishes; the games themselves were not at hand.
    "alfworld-unseen-134": _alfworld_official(
        "valid_unseen", 134, "86e39ccdc5d0035b437a96a0243bc89e006e3bfeafd0f4ff1176f2f0a8a6647d"
    ),
    "webshop-generated-test-200": _webshop_generated(
        200, "0b2183ea34d21855de0896ca53a76d03524e6b8d7687f4b9242434d4aa6764a0"
    ),
    "webshop-test-500": _webshop_official(
        "synthetic", 6_910, 500, "55fa1dc35a66ebc1efac70800538b672899dd8a1f839634a52e576741a8767ba"
    ),
    # The 12,087 instructions of the paper, of the full catalogue.
    "webshop-human-test-500": _webshop_official(
        "human", 12_087, 500, "21726e547747ddcd3cc22d10cfe81bda87b3b0f2ea6b437bebc3a3beba181555"
    ),
    "textcraft-test-200": _of_split(
        "env_wrappers/TextCraft-v0", "test", 200, "c86bf65eacfbd903198eefe40ed50a482aa2883ede497c69471c19b7bf52a56d"
    ),
    "textworld-test-100": _of_split(
        "env_wrappers/TextWorld-v0", "test", 100, "2aeaf36a7c6d71c9c36c796a34ca853ce881eb2e79a74a2afa3b7da37205000a"
    ),
    # Fifty of each of the eight games.
    "textworldexpress-test-400": _of_split(
        "env_wrappers/TextWorldExpress-v0",
        "test",
        400,
        "10e4e0b16cc3a09ea9f238f1612cd5b2d34b8c2dd33299f2d0460c4d6f0d68a1",
    ),
    # Ten of each of the thirty kinds of task, or as many as there are.
    "scienceworld-test-300": _of_split(
        "env_wrappers/ScienceWorld-v0", "test", 300, "a27ed338dbbb74cf9339a0f515d6a9138d907684b9e7c504edbb969d84b8d10f"
    ),
}


def _plain(value: Any) -> Any:
    """What JSON has in the place of a number of numpy's, or of a path."""
    number = whole_number(value)
    return os.fspath(value) if number is None else number


def _digest(env_id: str, env_kwargs: Mapping[str, Any], tasks: tuple[str, ...]) -> str:
    shared = {key: value for key, value in env_kwargs.items() if key not in _LOCAL_ARGUMENTS}
    text = json.dumps([env_id, shared, tasks], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
