"""Data with something beside it or broken in it: the rest is played, and what was left out is named and counted."""

from __future__ import annotations

import dataclasses
import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from env_wrappers.alfworld.archive import Archive
from env_wrappers.alfworld.data import verify
from env_wrappers.data_files import data_path
from env_wrappers.panels import find_panel, panel_from_split
from env_wrappers.textworld import games as textworld_games

ALFWORLD, WEBSHOP = "env_wrappers/ALFWorld-v0", "env_wrappers/WebShop-v0"
Record = dict[str, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def tasks_of(games: Path) -> list[str]:
    return list(gymnasium.make(ALFWORLD, games=games).get_wrapper_attr("tasks")("train"))


@pytest.fixture
def record(real_records: list[Record]) -> Record:
    return next(r for r in real_records if r["path"].startswith("train"))


# ALFWorld's folders


def renamed(name: str, put: str) -> str:
    split, task, trial, file = name.split("/")
    return put.format(split=split, task=task, trial=trial, file=file)


@pytest.mark.parametrize(
    ("put", "change", "said"),
    [
        ("{split}/{task} copy/{trial}/{file}", None, "1 in folders that are not named as those of a game"),
        ("{split}/{task}/{trial} (1)/{file}", None, "1 in folders that are not named as those of a game"),
        ("{split}/{task}9/{trial}/{file}", None, "1 in folders that are not named as those of a game"),  # no such room
        ("{split}/notes/mine/{file}", None, "1 in folders that are not named as those of a game"),
        ("{split}/{task}/other/{file}", lambda game: game.pop("solvable"), '1 without the key "solvable"'),
        ("{split}/{task}/other/{file}", lambda game: game.pop("grammar"), '1 damaged: cut off, or without "pddl_pro'),
        ("{split}/{task}/other/{file}", "", "1 damaged"),
        ("{split}/{task}/other/{file}", "half", "1 damaged"),
        ("{split}/{task}/other/{file}", "folder", "1 unreadable: Is a directory"),
        ("{split}/{task}/other/{file}", lambda game: game.update(solvable=False), ""),
        ("{split}/.DS_Store", "", ""),
    ],
)
def test_what_is_no_game_among_the_folders_is_left_out_and_said_once(
    record: Record, write_game: Any, tmp_path: Path, caplog: Any, put: str, change: Any, said: str
) -> None:
    write_game(tmp_path / record["path"], record)
    path = tmp_path / renamed(record["path"], put)
    write_game(path.parent / "draft" / path.name, record)
    text = (path.parent / "draft" / path.name).read_text()
    if callable(change):
        game = json.loads(text)
        change(game)
        text = json.dumps(game)
    elif change == "half":
        text = text[: len(text) // 2]
    elif change == "":
        text = ""
    if change == "folder":
        path.mkdir()
    else:
        path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert tasks_of(tmp_path) == [record["path"]]
        assert tasks_of(tmp_path) == [record["path"]]
    messages = [entry.getMessage() for entry in caplog.records]
    assert len(messages) == bool(said)
    assert all(said in message and str(tmp_path) in message for message in messages), messages


def test_what_is_damaged_is_in_the_report_of_the_data(record: Record, write_game: Any, tmp_path: Path) -> None:
    write_game(tmp_path / record["path"], record)
    broken = tmp_path / renamed(record["path"], "{split}/{task}/other/{file}")
    broken.parent.mkdir()
    broken.write_text("")
    train = verify(tmp_path)[0]
    assert train.games == 1
    assert [str(broken) in text for text in train.damaged] == [True]


def test_a_folder_of_nothing_but_other_things_says_so(record: Record, write_game: Any, tmp_path: Path) -> None:
    write_game(tmp_path / renamed(record["path"], "{split}/{task} copy/{trial}/{file}"), record)
    with pytest.raises(ValueError, match=r"has no task.*left out: 1 in folders that are not named"):
        tasks_of(tmp_path)


# ALFWorld's games file


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [lines[0], lines[1][:500]], "1 that are no JSON (line 2)"),
        (lambda lines: [lines[0], '["a"]'], "1 that lack path, task, pddl_problem (line 2)"),
        (
            lambda lines: [lines[0], lines[1].replace('"pddl_problem"', '"problem"')],
            "1 that lack pddl_problem (line 2)",
        ),
        (lambda lines: [lines[0], lines[0]], "1 of a game that is there twice (line 2, train/"),
        (
            lambda lines: [lines[0], lines[1].replace("/game.tw-pddl", "/game.z8")],
            "1 whose path is not split/task folder/",
        ),
        (lambda lines: [lines[0], lines[1].replace("(:goal", "(:gaol")], "1 whose pddl_problem lacks its (:init"),
        (lambda lines: ["{", "[", lines[0]], "2 that are no JSON (such as line 1)"),
        (lambda lines: [lines[0], "", "  "], ""),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_is_no_game_in_a_file_is_left_out_and_said_by_every_process(
    games_file: Path, tmp_path: Path, caplog: Any, spoil: Any, said: str, ending: str, mark: str
) -> None:
    lines = [line for line in games_file.read_text().splitlines() if line.startswith('{"path": "train')][:2]
    packed = tmp_path / "games.jsonl.xz"
    packed.write_bytes(lzma.compress((mark + ending.join(spoil(lines)) + ending).encode(), preset=0))
    with caplog.at_level(logging.WARNING):
        assert tasks_of(packed) == [json.loads(lines[0])["path"]]
    messages = [entry.getMessage() for entry in caplog.records]
    assert len(messages) == bool(said)
    assert all(f"{packed}: 1 games, and left out: {said}" in message for message in messages), messages
    assert Archive(packed).left_out.startswith(said), "another process reads what the first has unpacked"


def test_an_unpacked_archive_that_is_cut_off_is_made_anew(games_file: Path) -> None:
    first = Archive(games_file)
    whole = first._zip_path.read_bytes()
    first._zip_path.write_bytes(whole[: len(whole) // 2])
    assert Archive(games_file).names() == first.names()


# WebShop's catalogue

PRODUCT = {
    "asin": "B000000001",
    "name": "Acme Tea",
    "full_description": "Good.",
    "small_description": ["Green"],
    "pricing": "$1,200.50 to $1,300",
    "customization_options": {"Size": [{"value": "A"}]},
    "category": "grocery",
    "query": "tea",
    "product_category": "Food",
}
EXTRA = {"attributes": ["green tea"], "instruction": "Find me tea", "instruction_attributes": ["green tea"]}


def write_catalogue(folder: Path, products: list[Any], extras: dict[str, Any], mark: str = "") -> Path:
    (folder / "items_shuffle.json").write_text(mark + json.dumps(products))
    (folder / "items_ins_v2.json").write_text(mark + json.dumps(extras))
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pricing", "$12.99."),
        ("pricing", 12.99),
        ("pricing", ["$12.99"]),
        ("pricing", "$"),
        ("name", None),
        ("query", 3),
        ("category", ["grocery"]),
        ("small_description", 3),
        ("customization_options", {"Size": [{"valeu": "A"}]}),
        ("customization_options", {"Size": [{"value": 3}]}),
        ("customization_options", ["Size"]),
        ("attributes", "green tea"),
        ("attributes", [3]),
        ("instruction", 3),
        ("instruction_attributes", "green tea"),
    ],
)
def test_a_broken_product_is_left_out_with_its_field_and_value(
    tmp_path: Path, caplog: Any, field: str, value: Any
) -> None:
    broken, extra = PRODUCT | {"asin": "B000000002"}, dict(EXTRA)
    (broken if field in broken else extra)[field] = value
    write_catalogue(tmp_path, [PRODUCT, broken], {"B000000001": EXTRA, "B000000002": extra})
    with caplog.at_level(logging.WARNING):
        env = gymnasium.make(WEBSHOP, catalogue=tmp_path)
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert [product.asin for product in env.get_wrapper_attr("catalogue").products] == ["B000000001"]
    assert f"left out: 1 with a wrong {field} (product 1, B000000002: {field} is {value!r}, not " in message
    assert str(tmp_path) in message


def test_a_byte_order_mark_and_what_is_no_product_do_no_harm(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        write_catalogue(tmp_path, [3, None, PRODUCT, PRODUCT], {"B000000001": EXTRA}, mark="\ufeff")
        assert len(gymnasium.make(WEBSHOP, catalogue=tmp_path).get_wrapper_attr("catalogue").products) == 1
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "left out: 2 with a wrong record (such as product 0: record is 3" in message


def test_a_catalogue_in_another_encoding_is_named(tmp_path: Path) -> None:
    write_catalogue(tmp_path, [PRODUCT], {"B000000001": EXTRA})
    path = tmp_path / "items_shuffle.json"
    path.write_bytes(path.read_text().replace("Acme", "Acmé").encode("latin-1"))
    with pytest.raises(ValueError, match=r"items_shuffle\.json is no text in UTF-8"):
        gymnasium.make(WEBSHOP, catalogue=tmp_path)


@pytest.mark.parametrize("name", ["games.jsonl", "items_shuffle.json", "items_ins_v2.json"])
def test_a_file_that_may_not_be_read_is_named(
    games_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "games.jsonl").write_text(games_file.read_text())
    write_catalogue(tmp_path, [PRODUCT], {"B000000001": EXTRA})
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **keywords: Any) -> Any:  # the superuser may read everything
        if path == tmp_path / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    key = {"games.jsonl": (ALFWORLD, "games")}.get(name, (WEBSHOP, "catalogue"))
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(Permission denied\)"):
        gymnasium.make(key[0], **{key[1]: tmp_path})


# Paths and numbers, everywhere


def with_dollar(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["pay$load", "$HOME", "a$", "${x}", "cash$$"])
def test_a_path_may_hold_a_dollar_sign(
    games_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = with_dollar(tmp_path, name)
    (folder / "games.jsonl").write_text(games_file.read_text())
    write_catalogue(folder, [PRODUCT], {"B000000001": EXTRA})
    env = gymnasium.make(ALFWORLD, games=str(folder))
    assert gymnasium.make(WEBSHOP, catalogue=str(folder)).get_wrapper_attr("catalogue").products
    (folder / "panel.json").write_text("\ufeff" + panel_from_split(env, "train", 2).to_json())
    assert len(find_panel(str(folder / "panel.json"))) == 2
    monkeypatch.setenv("MY_DATA", str(folder))
    assert gymnasium.make(ALFWORLD, games="$MY_DATA").get_wrapper_attr("library") is env.get_wrapper_attr("library")
    assert data_path("folder", f"{tmp_path}/$NOT_SET_AT_ALL".replace("$NOT_SET_AT_ALL", name)) == folder


def test_a_variable_that_is_not_set_is_still_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_DATA", raising=False)
    for env_id, name in ((ALFWORLD, "games"), (WEBSHOP, "catalogue")):
        with pytest.raises(ValueError, match=rf"{name}='\$MY_DATA' names an environment variable that is not set"):
            gymnasium.make(env_id, **{name: "$MY_DATA"})
    with pytest.raises(ValueError, match=r"panel='\$MY_DATA'.*not set"):
        find_panel("$MY_DATA")


# TextWorld's folder of games, and panels


def test_a_game_of_textworld_that_is_cut_off_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(recipe: Any, path: Path) -> None:
        made.append(path.name)
        path.write_bytes(bytes(0x1A) + (8).to_bytes(2, "big") + bytes(64 - 0x1C))
        path.with_suffix(".json").write_text("{}")

    monkeypatch.setattr(textworld_games, "_make", make)

    def game() -> Path:
        return textworld_games.game_file("cooking/train/000001", "easy", 0, tmp_path)

    path = game()
    assert (game(), len(made)) == (path, 1)
    spoilers: list[Callable[[], Any]] = [
        lambda: path.write_bytes(path.read_bytes()[:40]),
        lambda: path.write_bytes(b""),
        lambda: path.with_suffix(".json").write_text("{"),
        lambda: path.with_suffix(".json").unlink(),
    ]
    for number, spoil in enumerate(spoilers, start=2):
        spoil()
        assert (game(), len(made)) == (path, number)


@pytest.mark.textworld
def test_a_file_in_the_place_of_the_folder_for_games_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder=.*is a file; give a folder"):
        gymnasium.make("env_wrappers/TextWorld-v0", folder=tmp_path / "file")


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"tasks": 3, "env_kwargs": {}}', '{"tasks": [], "env_kwargs": "a"}', "{"]
)
def test_a_panel_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "panel.json").write_text(text)
    with pytest.raises(ValueError, match="No panel"):
        find_panel(str(tmp_path / "panel.json"))
    (tmp_path / "panel.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        find_panel(str(tmp_path / "panel.json"))
    with pytest.raises(ValueError, match="neither a panel"):
        find_panel(str(tmp_path))


@pytest.mark.textworld
def test_a_game_whose_task_is_a_program_is_refused_by_the_official_engine(tmp_path):
    """Its grammar evaluates what stands between braces."""
    from env_wrappers.alfworld.official import Engine
    from env_wrappers.alfworld.problem import GameError

    source = gymnasium.make("env_wrappers/ALFWorld-v0", rooms="bathroom").unwrapped.library.source(
        "generated/train/000000"
    )
    ran = tmp_path / "ran"
    for task in (f"put {{open({str(ran)!r}, 'w')}} in shelf.", "put #task# in shelf.", 'put " in shelf.'):
        with pytest.raises(GameError, match="official engine's grammar"):
            Engine().reset(dataclasses.replace(source, task=task))
    assert not ran.exists()


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    """The index of a catalogue is kept as numpy's files, which may hold pickles."""
    import pickle

    from env_wrappers.webshop.index import load_array

    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "array.npy").write_bytes(start + pickle.dumps([Runs()]))
    with pytest.raises(ValueError):
        load_array(tmp_path / "array.npy")
    assert not (tmp_path / "ran").exists()
