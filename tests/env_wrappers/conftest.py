"""Real games and recorded episodes, cut to what the tests need."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.alfworld import package

Record = dict[str, Any]
WriteGame = Callable[..., None]


@pytest.fixture(scope="session")
def golden_episodes(shared: Path) -> list[Record]:
    """Episodes of valid_seen games that the official engine played: 4 of each task type."""
    with gzip.open(shared / "golden/alfworld/episodes.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def real_records(shared: Path, golden_episodes: list[Record]) -> list[Record]:
    """The real games of the golden episodes, and every 60th of the others."""
    golden = {episode["path"] for episode in golden_episodes}
    records = []
    with lzma.open(shared / "data/alfworld/games.jsonl.xz", "rt") as lines:
        for number, line in enumerate(lines):
            if number % 60 == 0 or line.startswith('{"path": "valid_seen'):
                record = json.loads(line)
                if number % 60 == 0 or record["path"] in golden:
                    records.append(record)
    return records


@pytest.fixture(scope="session")
def games_file(real_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A games.jsonl with `real_records`."""
    path = tmp_path_factory.mktemp("games") / "games.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in real_records))
    return path


@pytest.fixture(scope="session")
def games_folder(real_records: list[Record], write_game: WriteGame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as alfworld-download makes it, with a game of each task type in each split at hand."""
    root = tmp_path_factory.mktemp("data")
    seen = set()
    for record in real_records:
        kind = (record["path"].split("/")[0], record["task_type"])
        if kind not in seen:
            seen.add(kind)
            write_game(root / "json_2.1.1" / record["path"], record)
    return root


@pytest.fixture(scope="session")
def write_game() -> WriteGame:
    """Writes a game.tw-pddl from a record, in today's wording or that of release 2.1.1."""

    def write(path: Path, record: Record, *, old_grammar: bool = False, solvable: bool = True) -> None:
        domain, grammar = package.domain(), package.grammar()
        if old_grammar:
            # All that release 0.4 changed: the verb, where one arrives, and the action "help".
            for new, old in (
                ("move {o} to {r}", "put {o} in/on {r}"),
                ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
                ("You arrive at {r.name}.", "You arrive at {lend.name}."),
            ):
                assert new in grammar
                grammar = grammar.replace(new, old)
            grammar = grammar[: grammar.index("action help")]
            domain = domain[: domain.index("(:action help")] + ")\n"
        grammar = grammar.replace("UNKNOWN GOAL", record["task"])
        game = {"pddl_domain": domain, "grammar": grammar, "pddl_problem": record["pddl_problem"]}
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(game | {"solvable": solvable, "walkthrough": []}))

    return write
