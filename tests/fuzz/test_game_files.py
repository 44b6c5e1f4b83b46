"""Game files may hold anything: a game or a `GameError`; folders and archives leave out what is none, and say so."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env_wrappers.alfworld.engine import State
from env_wrappers.alfworld.games import FileLibrary, open_library, read_game_file
from env_wrappers.alfworld.generator import GeneratorConfig
from env_wrappers.alfworld.problem import GameError, parse_game
from env_wrappers.alfworld.rooms import FLOOR_PLANS
from tests.fuzz.inputs import WORDS, damaged, files, fuzz, lines, outcome

PLAN = next(iter(next(iter(FLOOR_PLANS.values()))))
PATH = "train/pick_and_place_simple-Mug-None-Desk-{}/trial_{}/game.tw-pddl"


class Record(dict[str, Any]):
    """Not printed: a problem has hundreds of lines."""

    def __repr__(self) -> str:
        return "the game"


@pytest.fixture(scope="module")
def game() -> dict[str, Any]:
    """A game of the generator, as the official files have theirs."""
    source = open_library(None, GeneratorConfig(), None).source("generated/train/000001")
    grammar = f'rule "move {{o}} to {{r}}" "Your task is to: {source.task}"'
    return Record(pddl_problem=source.problem, grammar=grammar, solvable=True, pddl_domain="")


@fuzz
@given(data=st.data())
def test_a_game_file_is_a_game_or_a_game_error(game: dict[str, Any], tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(data.draw(files(game)))
    source, refusal = outcome(lambda: read_game_file(path), GameError)
    if refusal is None:
        outcome(lambda: parse_game(source.problem, source.task), GameError)
    else:
        assert str(path) in refusal


@fuzz
@given(data=st.data())
def test_a_problem_is_a_game_or_a_game_error(game: dict[str, Any], data: st.DataObject) -> None:
    """The PDDL itself, with words of it changed: what is taken can be played."""
    words = game["pddl_problem"].split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words) - 1))
        kind = data.draw(st.sampled_from(["drop", "swap", "word", "bracket"]))
        other = data.draw(st.integers(0, len(words) - 1))
        words[place] = {
            "drop": "", "swap": words[other], "word": data.draw(WORDS), "bracket": words[place] + "()"[other % 2]
        }[kind]  # fmt: skip
    parsed, refusal = outcome(lambda: parse_game(" ".join(words), "put a mug in desk."), GameError)
    if refusal is None:
        state = State(parsed)
        for command in ["look", "inventory", *list(state.actions)[:3]]:
            state.step(command)


@fuzz
@given(data=st.data())
def test_a_games_file_is_read_but_for_what_is_no_game(
    game: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    records = [
        {"path": PATH.format(PLAN, number), "task": "put a mug in desk", "pddl_problem": game["pddl_problem"]}
        for number in range(2)
    ]
    content = data.draw(lines(*records))
    packed = data.draw(st.booleans())
    if packed:
        content = lzma.compress(content, preset=0)
        content = data.draw(st.just(content) | damaged(content))
    path = tmp_path / ("games.jsonl.xz" if packed else "games.jsonl")
    path.write_bytes(content)

    def play() -> None:
        library = FileLibrary(path, None, None, {})
        for task in library.tasks("train"):
            library.parse(task)

    _, refusal = outcome(play, ValueError)  # GameError is one
    assert refusal is None or "games.jsonl" in refusal
    for file in (tmp_path / "cache").rglob("*.zip"):
        file.unlink()


@fuzz
@given(data=st.data())
def test_a_folder_of_games_is_read_but_for_what_is_no_game(
    game: dict[str, Any], tmp_path: Path, data: st.DataObject
) -> None:
    for number in range(2):
        path = tmp_path / PATH.format(PLAN, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.draw(files(game)) if number else json.dumps(game).encode())
    library = FileLibrary(tmp_path, None, None, {})
    assert PATH.format(PLAN, 0) in library.tasks("train")
    for task in library.tasks("train"):
        _, refusal = outcome(lambda task=task: library.parse(task), GameError)
        assert refusal is None or task in refusal


@fuzz
@given(task=WORDS | st.sampled_from(["generated/train/000001", "../../etc/passwd", "generated/train/99999999999999"]))
def test_a_task_id_is_a_game_or_a_value_error(task: str) -> None:
    library = open_library(None, GeneratorConfig(), None)
    _, refusal = outcome(lambda: library.load(task), ValueError)
    assert refusal is None or repr(task) in refusal
