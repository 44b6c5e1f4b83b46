"""Libraries of games: generated, folders of the official release, and games.jsonl(.xz)."""

from __future__ import annotations

import json
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from env_wrappers.alfworld import archive, games
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.problem import TASK_TYPES, GameError

Record = dict[str, Any]
WriteGame = Callable[..., None]
ENV = "env_wrappers/ALFWorld-v0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def make(**kwargs: Any) -> Any:
    return gymnasium.make(ENV, **kwargs).unwrapped


def test_generated_tasks_are_ids_that_cost_nothing_to_list() -> None:
    env = make()
    assert env.tasks("train")[123] == "generated/train/000123"
    assert [len(env.tasks(split)) for split in env.splits] == [10_000, 200, 200]
    env = make(num_tasks={"train": 100_000})
    assert len(env.tasks("train")) == 100_000
    assert len(env.tasks("valid_seen")) == 200


def test_an_id_makes_its_game_whatever_the_number_of_tasks() -> None:
    task = {"task": "generated/train/000123"}
    assert make(num_tasks={"train": 5}).reset(options=task) == make().reset(options=task)


def test_a_file_and_a_folder_of_the_same_games_play_the_same(games_file: Path, games_folder: Path) -> None:
    from_file, from_folder = make(games=games_file), make(games=games_folder)
    tasks = from_folder.tasks("train") + from_folder.tasks("valid_seen")
    assert len(tasks) == 12
    for task in tasks:
        assert from_file.reset(options={"task": task}) == from_folder.reset(options={"task": task})


@pytest.mark.textworld
@pytest.mark.parametrize("stop", ["", ".", ".."])
def test_with_or_without_a_full_stop_in_the_record_the_text_is_the_official_one(
    golden_episodes: list[Record], real_records: list[Record], write_game: WriteGame, tmp_path: Path, stop: str
) -> None:
    recorded = {episode["path"]: episode["reset"]["observation"] for episode in golden_episodes}
    record = min((r for r in real_records if r["path"] in recorded), key=lambda r: len(r["pddl_problem"]))
    record = record | {"task": record["task"] + stop}
    write_game(tmp_path / "folder" / record["path"], record)
    spoil(tmp_path / "games.jsonl", [json.dumps(record)])
    for arguments in ({}, {"engine": "textworld"}):
        for path in (tmp_path / "folder", tmp_path / "games.jsonl"):
            observation, info = make(games=path, **arguments).reset(options={"task": record["path"]})
            assert observation == recorded[record["path"]]
            assert info["goal"] == record["task"].rstrip(".")


def test_the_split_folder_itself_or_its_parent_may_be_given(
    games_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make(games=games_folder).tasks("train")
    assert make(games=str(games_folder / "json_2.1.1")).tasks("train") == expected
    monkeypatch.setenv("ALFWORLD_DATA", str(games_folder))
    assert make(games="$ALFWORLD_DATA").tasks("train") == expected


def test_a_games_file_in_the_folder_goes_first_and_the_newest_release_after_it(
    games_file: Path, games_folder: Path, real_records: list[Record], write_game: WriteGame, tmp_path: Path
) -> None:
    (tmp_path / "json_2.1.1").symlink_to(games_folder / "json_2.1.1")
    assert make(games=tmp_path).tasks("train") == make(games=games_folder).tasks("train")
    record = next(record for record in real_records if record["path"].startswith("train"))
    write_game(tmp_path / "json_2.1.2" / record["path"], record)
    (tmp_path / "json_2.1.3/train").mkdir(parents=True)  # without games
    assert games.find_games(tmp_path) == tmp_path / "json_2.1.2"
    (tmp_path / "games.jsonl").symlink_to(games_file)
    assert make(games=tmp_path).tasks("train") == make(games=games_file).tasks("train")


def test_a_task_may_be_named_by_its_folder(games_folder: Path) -> None:
    env = make(games=games_folder)
    task = env.tasks("valid_seen")[0]
    folder = task.removesuffix("/game.tw-pddl")
    assert env.reset(options={"task": folder}) == env.reset(options={"task": task})
    assert env.reset(options={"task": folder})[1]["task"] == task


def test_games_of_release_2_1_1_are_upgraded(real_records: list[Record], write_game: WriteGame, tmp_path: Path) -> None:
    record = next(r for r in real_records if r["task_type"] == "pick_and_place_simple")
    for name, old in (("old", True), ("new", False)):
        write_game(tmp_path / name / record["path"], record, old_grammar=old)
    old, new = make(games=tmp_path / "old"), make(games=tmp_path / "new")
    assert "put {o} in/on {r}" in (tmp_path / "old" / record["path"]).read_text()
    assert old.reset(options={"task": record["path"]}) == new.reset(options={"task": record["path"]})
    commands = solution(old.state.game)
    assert commands
    assert any(command.startswith("move ") for command in commands)
    for command in ("help", *commands):
        outcome = old.step(command)
        assert outcome == new.step(command)
    assert outcome[2], "the task is not solved"


@pytest.mark.textworld
def test_the_official_engine_plays_upgraded_games_too(
    real_records: list[Record], write_game: WriteGame, tmp_path: Path
) -> None:
    record = min(real_records, key=lambda r: len(r["pddl_problem"]))
    write_game(tmp_path / record["path"], record, old_grammar=True)
    official, ours = make(games=tmp_path, engine="textworld"), make(games=tmp_path)
    assert official.reset(options={"task": record["path"]}) == ours.reset(options={"task": record["path"]})
    for action in ("look", "help", "inventory"):
        assert official.step(action) == ours.step(action)


def test_unsolvable_and_unsupported_games_are_left_out(
    real_records: list[Record], write_game: WriteGame, tmp_path: Path
) -> None:
    record = next(r for r in real_records if r["path"].startswith("train"))
    write_game(tmp_path / "train/pick_and_place_simple-Mug-None-Desk-301/trial_a/game.tw-pddl", record)
    write_game(tmp_path / "train/pick_and_place_simple-Mug-None-Desk-301/trial_b/game.tw-pddl", record, solvable=False)
    write_game(tmp_path / "train/pick_and_place_with_movable_recep-Mug-Box-Desk-301/trial_c/game.tw-pddl", record)
    write_game(tmp_path / "train/notes/trial_e/game.tw-pddl", record)
    write_game(tmp_path / "train/pick_and_place_simple-AppleSliced-None-Desk-301/trial_d/game.tw-pddl", record)
    assert make(games=tmp_path).tasks("train") == ["train/pick_and_place_simple-Mug-None-Desk-301/trial_a/game.tw-pddl"]


def test_a_pickled_episode_of_an_official_game_goes_on(games_file: Path) -> None:
    env = make(games=games_file)
    env.reset(options={"task": env.tasks("valid_seen")[0]})
    commands = solution(env.state.game) or []
    for command in commands[:2]:
        env.step(command)
    pickled = pickle.dumps(env)
    assert len(pickled) < 20_000
    twin = pickle.loads(pickled)
    assert [twin.step(command) for command in commands[2:]] == [env.step(command) for command in commands[2:]]
    assert twin.state.won


def test_filters_choose_among_official_games(games_file: Path) -> None:
    kitchen = make(games=games_file, rooms=("kitchen",)).tasks("train")
    assert kitchen
    assert all(int(task.split("/")[1].rsplit("-", 1)[1]) <= 30 for task in kitchen)
    light = make(games=games_file, task_types=["look_at_obj_in_light"]).tasks("train")
    assert light
    assert all("/look_at_obj_in_light-" in task for task in light)
    everything = make(games=games_file).tasks("train")
    assert make(games=games_file, num_tasks={"train": 3}).tasks("train") == everything[:3]
    assert {t.split("/")[1].split("-")[0] for t in everything[:40]} == set(TASK_TYPES), "the order mixes task types"


@pytest.mark.slow
def test_the_real_data_is_complete_and_in_its_fixed_order(shared: Path) -> None:
    env = make(games=shared / "data/alfworld/games.jsonl.xz")
    assert len(env.tasks("train")) == 3553
    assert len(env.tasks("valid_seen")) == 140
    assert env.tasks("valid_seen")[0].startswith("valid_seen/pick_cool_then_place_in_recep-Tomato-None-Microwave-13/")
    assert env.reset(options={"task": env.tasks("train")[0]})


def test_an_archive_is_unpacked_once_and_read_by_all(
    games_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "games.jsonl.xz"
    packed.write_bytes(lzma.compress(games_file.read_bytes(), preset=0))
    names = archive.Archive(packed).names()
    assert len(names) == len(games_file.read_text().splitlines())
    monkeypatch.setattr(archive, "_unpack", None)
    again = archive.Archive(packed)
    assert again.names() == names
    assert again.read(names[0])["path"] == names[0]


# Bad input


def spoil(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_an_archive_without_a_game_is_refused_with_its_reason(games_file: Path, tmp_path: Path) -> None:
    good = games_file.read_text().splitlines()
    for lines, message in (
        ([good[1][:500]], r"games.jsonl holds no game \(1 that are no JSON \(line 1\)"),
        ([], "holds no game"),
    ):
        with pytest.raises(GameError, match=message):
            make(games=spoil(tmp_path / "games.jsonl", lines))
    truncated = tmp_path / "games.jsonl.xz"
    truncated.write_bytes(lzma.compress(games_file.read_bytes(), preset=0)[:50_000])
    with pytest.raises(GameError, match=r"games.jsonl.xz, line \d+"):
        make(games=truncated)
    truncated.write_bytes(b"not compressed at all")
    with pytest.raises(GameError, match=r"games.jsonl.xz, line 1"):
        make(games=truncated)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ("{", "no game file"),
        ('{"solvable": true}', "no game file.*pddl_problem"),
        ('{"solvable": true, "pddl_problem": "", "grammar": "x"}', "neither release"),
        ('{"solvable": true, "pddl_problem": "", "grammar": "move {o} to {r}"}', "names no task"),
        (
            '{"solvable": true, "pddl_problem": "(define", "grammar": "move {o} to {r} Your task is to: x.\\""}',
            "corrupt",
        ),
    ],
)
def test_a_corrupt_game_file_is_named(
    real_records: list[Record], write_game: WriteGame, tmp_path: Path, spoiled: str, message: str
) -> None:
    path = tmp_path / real_records[0]["path"]
    write_game(path, real_records[0])
    env = make(games=tmp_path)
    path.write_text(spoiled)
    with pytest.raises(GameError, match=message) as error:
        env.reset(options={"task": real_records[0]["path"]})
    assert real_records[0]["path"] in str(error.value)


def test_what_is_not_there_is_said_with_a_remedy(
    games_file: Path, games_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*does not exist.*alfworld-download"):
        make(games=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no ALFWorld games"):
        make(games=tmp_path)
    with pytest.raises(ValueError, match="environment variable that is not set"):
        make(games="$ALFWORLD_DATA")
    with pytest.raises(ValueError, match=r"'valid_unseen'.*has no task"):
        make(games=games_folder).tasks("valid_unseen")
    with pytest.raises(ValueError, match=r"'test' is unknown.*'train'"):
        make().tasks("test")
    with pytest.raises(ValueError, match=r"max_objects=3.*generated"):
        make(games=games_file, max_objects=3)
    with pytest.raises(ValueError, match="'tarin'"):
        make(num_tasks={"tarin": 3})
    with pytest.raises(ValueError, match="-1"):
        make(num_tasks={"train": -1})
    with pytest.raises(ValueError, match=r"engine='fast'.*'native', 'textworld'"):
        make(engine="fast")
    with pytest.raises(ValueError, match=r"valid_seen/mug.*not among"):
        make(games=games_file).reset(options={"task": "valid_seen/mug"})
    with pytest.raises(TypeError, match="romos"):
        make(romos=("kitchen",))
