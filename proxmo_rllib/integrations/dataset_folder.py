"""Recorded episodes to and from a folder of Hugging Face `datasets`, without loss.

```python
write_dataset(Path("runs/quickstart-..."), Path("episodes"))  # then datasets.load_from_disk("episodes")
write_record(Path("episodes"), Path("runs/copy"))  # then proxmo view runs/copy
```

One row is one episode. `COLUMNS` says what is in it; `docs/other_programs.md` has the table.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from proxmo_rllib.advantages import estimate_advantages
from proxmo_rllib.integrations.packages import require
from proxmo_rllib.json_lines import read_episode
from proxmo_rllib.machine.disk import write_whole
from proxmo_rllib.machine.folders import make_folder
from proxmo_rllib.record_file import NAME, record_lines, record_of
from proxmo_rllib.viewer.credit import Settings, is_exact, turn_table

VERSIONS = ">=4"
INSTALL = 'pip install "proxmo_rllib[datasets]"'

#: Of an episode, as its record has them.
EPISODE_COLUMNS = {
    "iteration": "int64",
    "episode": "string",
    "group": "string",
    "task": "string",
    "task_type": "string",
    "status": "string",
    "return": "float64",
    "score": "float64",
    "error": "string",
}
#: Of its turns, one entry each: column, key in the record, type.
TURN_COLUMNS = (
    ("actions", "action", "string"),
    ("valid", "valid", "bool"),
    ("rewards", "reward", "float64"),
    ("versions", "version", "int64"),
    ("logprobs", "logprob", "float64"),
)
_IN_MESSAGES = ("observation", "response")
_TURN_KEYS = {key for _, key, _ in TURN_COLUMNS} | set(_IN_MESSAGES)
#: What no column holds (tokens, their logprobs, the estimator's settings), as JSON.
MORE = "more"
COLUMNS = (*EPISODE_COLUMNS, "success", "messages", *(name for name, _, _ in TURN_COLUMNS), "advantages", MORE)


def write_dataset(run: Path, folder: Path) -> int:
    """Writes the episodes of a run as a dataset.

    Args:
        run: a run's folder, or the file of its record.
        folder: of the dataset; must not be there.

    Returns:
        How many episodes it holds.

    Raises:
        ValueError: there is no record, or it is damaged; the folder is there.
        ImportError: `datasets` is not installed, or too old.
    """
    datasets = require("datasets", VERSIONS, INSTALL)
    record = record_of(run)
    if folder.exists():
        raise ValueError(f"{folder} is there already; remove it, or name another.")
    make_folder(folder.absolute().parent, "the dataset's folder", "name another")
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as scratch:
        # Row by row: a long run's record does not fit into memory.
        made = datasets.Dataset.from_generator(
            _rows, features=_features(datasets), cache_dir=scratch, gen_kwargs={"record": str(record)}
        )
        made.save_to_disk(str(folder))
        return len(made)


def write_record(folder: Path, run: Path) -> int:
    """Writes a dataset as the record of a run, which the viewer and `Demonstrations` read.

    Args:
        folder: of the dataset.
        run: folder to write it into, which must hold no record.

    Returns:
        How many episodes it holds.

    Raises:
        ValueError: there is no such dataset, or a column is missing or wrong; there is a record.
        ImportError: as `write_dataset`.
    """
    if (run / NAME).exists():
        raise ValueError(f"{run / NAME} is there already; name another folder.")
    records = read_dataset(folder)
    number = 0

    def written() -> Iterator[bytes]:
        nonlocal number
        for _, members in groupby(records, key=lambda episode: episode["iteration"]):
            lines = [json.dumps(episode, ensure_ascii=False) + "\n" for episode in members]
            number += len(lines)
            yield gzip.compress("".join(lines).encode(), compresslevel=6, mtime=0)
        if not number:
            raise ValueError(f"{folder}: the dataset has no rows.")

    make_folder(run.absolute(), "the run's folder", "name another")
    write_whole(run / NAME, written())
    return number


def read_dataset(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a dataset's episodes, as `rollouts.record` writes them. Errors as of `write_record`."""
    datasets = require("datasets", VERSIONS, INSTALL)
    try:
        rows = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, OSError) as error:
        raise ValueError(f"{folder} is no folder that `Dataset.save_to_disk` wrote: {error}") from error
    if isinstance(rows, datasets.DatasetDict):
        raise ValueError(f"{folder} holds the splits {', '.join(rows)}; name one, such as {folder / next(iter(rows))}.")
    missing = [column for column in COLUMNS if column not in rows.column_names and column != "advantages"]
    if missing:
        raise ValueError(f"{folder} has no column {', '.join(map(repr, missing))}; see docs/other_programs.md for all.")
    return (record_of_row(row, f"{folder}, row {number}") for number, row in enumerate(rows))


def row_of(episode: Mapping[str, Any], advantages: Sequence[float] | None) -> dict[str, Any]:
    """A row of the dataset.

    Args:
        episode: its record.
        advantages: of its turns; None where they are not known.
    """
    turns = episode["turns"]
    row: dict[str, Any] = {name: episode[name] for name in EPISODE_COLUMNS}
    row["success"] = episode["status"] == "success"
    row["messages"] = [
        {"role": role, "content": turn[key]}
        for turn in turns
        for role, key in zip(("user", "assistant"), _IN_MESSAGES, strict=True)
    ]
    row |= {name: [turn[key] for turn in turns] for name, key, _ in TURN_COLUMNS}
    row["advantages"] = None if advantages is None else list(advantages)
    more = {
        "episode": {key: value for key, value in episode.items() if key not in EPISODE_COLUMNS and key != "turns"},
        "turns": [{key: value for key, value in turn.items() if key not in _TURN_KEYS} for turn in turns],
    }
    row[MORE] = json.dumps(more, ensure_ascii=False)
    return row


def record_of_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record that a row was made from.

    Args:
        row: of a dataset; `more` may be empty, as of rows that somebody else made.
        where: it stands, for the message.

    Raises:
        ValueError: its parts do not fit each other, or it lacks what every record has.
    """
    said = [message["content"] for message in row["messages"]]
    roles = [message["role"] for message in row["messages"]]
    turns = len(roles) // 2
    if roles != ["user", "assistant"] * turns:
        raise ValueError(f"{where}: messages has the roles {roles!r:.80}; they alternate, 'user' first.")
    for name, _, _ in TURN_COLUMNS:
        if len(row[name]) != turns:
            raise ValueError(f"{where}: {name} has {len(row[name])} entries, and messages has {turns} turns.")
    more = json.loads(row[MORE]) if row[MORE] else {"episode": {}, "turns": [{}] * turns}
    record = {name: row[name] for name in EPISODE_COLUMNS} | more["episode"]
    record["turns"] = [
        dict(zip(_IN_MESSAGES, said[2 * turn : 2 * turn + 2], strict=True))
        | {key: row[name][turn] for name, key, _ in TURN_COLUMNS}
        | more["turns"][turn]
        for turn in range(turns)
    ]
    return read_episode(json.dumps(record), where)


def _features(datasets: Any) -> Any:
    value = datasets.Value
    features: dict[str, Any] = {name: value(kind) for name, kind in EPISODE_COLUMNS.items()}
    features |= {"success": value("bool"), "messages": [{"role": value("string"), "content": value("string")}]}
    features |= {name: [value(kind)] for name, _, kind in TURN_COLUMNS}
    features |= {"advantages": [value("float64")], MORE: value("string")}
    return datasets.Features(features)


def _rows(record: str) -> Iterator[dict[str, Any]]:
    """Rows of a record, an iteration at a time, since the episodes of a group need not lie together."""
    path = Path(record)
    lines = (read_episode(line, f"{path}, line {number}") for number, line in enumerate(record_lines(path), start=1))
    for _, members in groupby(lines, key=lambda episode: episode["iteration"]):
        episodes = list(members)
        known = _advantages(episodes)
        yield from (row_of(episode, found) for episode, found in zip(episodes, known, strict=True))


def _advantages(episodes: Sequence[Mapping[str, Any]]) -> list[list[float] | None]:
    """Of the turns of each episode, as the run's estimator gave them; None where the record cannot tell."""
    by_group: dict[str, list[int]] = {}
    for place, episode in enumerate(episodes):
        by_group.setdefault(episode["group"], []).append(place)
    found: list[list[float] | None] = [None] * len(episodes)
    for places in by_group.values():
        members = [episodes[place] for place in places]
        settings = _settings(members)
        if settings is None:
            continue
        try:
            total = estimate_advantages(turn_table(members), settings.estimator, **settings.options).total.tolist()
        except (ValueError, OSError):  # such as a similarity whose model is not on this machine
            continue
        for place, episode in zip(places, members, strict=True):
            found[place], total = total[: len(episode["turns"])], total[len(episode["turns"]) :]
    return found


def _settings(members: Iterable[Mapping[str, Any]]) -> Settings | None:
    """The estimator's, if the group is whole and alone decides its advantages."""
    members = list(members)
    statuses = Counter(episode["status"] for episode in members)
    credit = members[0].get("credit")
    if statuses["error"] or not isinstance(credit, Mapping) or credit.get("group_size") != len(members):
        return None
    settings = Settings.of(members[0])
    return None if settings.note or not is_exact(settings.estimator, settings.options) else settings
