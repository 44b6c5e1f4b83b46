"""The official data is checked against what is known of it, and packed without a loss."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from env_wrappers.alfworld.data import CONTENTS, OFFICIAL, SplitReport, convert, verify
from env_wrappers.alfworld.env import ALFWorldEnv
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.problem import GameError
from env_wrappers.core import SPLITS


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(games_folder: Path, tmp_path: Path) -> Path:
    """A data folder that a test may change."""
    return Path(shutil.copytree(games_folder, tmp_path / "data"))


def test_packed_games_play_exactly_as_their_folder(folder: Path) -> None:
    from_folder = ALFWorldEnv(games=folder / "json_2.1.1")
    counted: list[tuple[int, int]] = []
    number = convert(folder, folder / "games.jsonl.xz", lambda done, total: counted.append((done, total)))
    assert counted[-1] == (number, number) == (12, 12)
    packed = ALFWorldEnv(games=folder)  # the file is found in it
    assert packed.library.name.endswith("games.jsonl.xz")
    for split in ("train", "valid_seen"):
        assert packed.tasks(split) == from_folder.tasks(split)
        for task in packed.tasks(split):
            assert packed.reset(options={"task": task}) == from_folder.reset(options={"task": task})
            for command in solution(packed.state.game) or ():
                assert packed.step(command) == from_folder.step(command)
    assert not [path for path in folder.iterdir() if path.name not in ("json_2.1.1", "games.jsonl.xz")]
    with pytest.raises(ValueError, match="one file already"):
        convert(folder, folder / "again.jsonl.xz")


def test_what_is_missing_or_damaged_is_said(folder: Path) -> None:
    reports = {report.split: report for report in verify(folder)}
    assert [reports[split].finding for split in SPLITS] == ["6 instead of 3553", "6 instead of 140", "not there"]
    broken = next((folder / "json_2.1.1/train").rglob("game.tw-pddl"))
    broken.write_text('{"solvable": true}')
    hopeless = next((folder / "json_2.1.1/valid_seen").rglob("game.tw-pddl"))
    game = json.loads(hopeless.read_text())
    hopeless.write_text(json.dumps(game | {"pddl_problem": game["pddl_problem"].replace("(pickupable", "(moveable")}))
    train, seen, _ = verify(folder)
    assert (train.finding, seen.finding) == ("1 damaged", "1 damaged")
    assert str(broken) in train.damaged[0]
    assert "cannot be won" in seen.damaged[0]
    with pytest.raises(GameError, match="games that cannot be read: 1 damaged"):
        convert(folder, folder / "games.jsonl.xz")
    assert [path.name for path in folder.iterdir()] == ["json_2.1.1"], "something half-made was left"


def test_the_right_number_of_wrong_games_is_noticed() -> None:
    for split, (games, ids) in OFFICIAL.items():
        contents = CONTENTS.get(split, "")
        assert SplitReport(split, games, games, ids, (), contents).complete
        assert SplitReport(split, games, games, ids[::-1], (), contents).finding == "other games than the official ones"
        if contents:
            changed = SplitReport(split, games, games, ids, (), contents[::-1])
            assert changed.finding == "the official ids, with other contents"


def test_a_change_within_a_game_is_seen(folder: Path) -> None:
    before = {report.split: report.contents for report in verify(folder)}
    path = next((folder / "json_2.1.1/train").rglob("game.tw-pddl"))
    game = json.loads(path.read_text())
    path.write_text(json.dumps(game | {"pddl_problem": game["pddl_problem"] + "\n"}))
    after = {report.split: report.contents for report in verify(folder)}
    assert [split for split in SPLITS if before[split] != after[split]] == ["train"]
    convert(folder, folder / "games.jsonl.xz")
    assert {report.split: report.contents for report in verify(folder)} == after, "packed, it is another"


@pytest.mark.slow
def test_the_real_data_is_the_official_one_and_every_game_of_it_can_be_won(shared: Path) -> None:
    train, seen, unseen = verify(shared / "data/alfworld")
    assert (train.games, train.finding) == (3553, "complete")
    assert (seen.games, seen.finding) == (140, "complete")
    assert unseen.finding == "not there"


def test_a_task_without_its_full_stop_is_packed_with_it(folder: Path) -> None:
    path = next((folder / "json_2.1.1/train").rglob("game.tw-pddl"))
    task = {"task": path.relative_to(folder / "json_2.1.1").as_posix()}
    before = ALFWorldEnv(games=folder).reset(options=task)
    game = json.loads(path.read_text())
    path.write_text(json.dumps(game | {"grammar": re.sub(r"(Your task is to: [^\".]*)\.", r"\1", game["grammar"])}))
    convert(folder, folder / "games.jsonl.xz")
    assert ALFWorldEnv(games=folder).reset(options=task) == before
