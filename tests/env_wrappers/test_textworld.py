"""TextWorld's generated games: the same everywhere, cleaned of the terminal, won by TextWorld's own commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from env_wrappers.textworld import games
from env_wrappers.textworld.games import KINDS, game_file, parse_task, recipe

needs_engine = [pytest.mark.textworld, pytest.mark.slow]  # a game takes seconds to make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the games of these tests are kept."""
    return tmp_path_factory.mktemp("games")


def make(folder: Path, **arguments: Any) -> Any:
    return gymnasium.make("env_wrappers/TextWorld-v0", folder=folder, **arguments).unwrapped


def test_a_task_is_made_from_the_same_things_everywhere() -> None:
    assert recipe("cooking/valid/000003", "hard", 0) == recipe("cooking/valid/000003", "hard", 0)
    assert recipe("cooking/valid/000003", "hard", 0).settings["split"] == "valid"
    seeds = {recipe(f"{kind}/{split}/000000", "easy", 0).seed for kind in KINDS for split in ("train", "valid", "test")}
    assert len(seeds) == 12
    with pytest.raises(ValueError, match="'chess/train/000000'"):
        parse_task("chess/train/000000")


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    monkeypatch.delitem(sys.modules, "env_wrappers.textworld.env", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'proxmo_rllib\[textworld\]'"):
        gymnasium.make("env_wrappers/TextWorld-v0")


class TestGames:
    pytestmark = needs_engine

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_games_own_commands_win(self, kind: str, folder: Path) -> None:
        env = make(folder, kinds=kind)
        observation, info = env.reset(options={"task": f"{kind}/train/000000"})
        assert "$$" not in observation
        assert not observation.startswith(("\n", " "))
        assert info["goal"]
        rewards = []
        for action in env.plan():
            assert action in info["admissible_actions"]
            observation, reward, terminated, _, info = env.step(action)
            assert "\n>" not in observation
            assert "-=" not in observation.splitlines()[-1]
            rewards.append(reward)
        assert terminated
        assert info["success"]
        assert sum(rewards) == pytest.approx(1.0)
        assert "RESTART" not in observation

    def test_orders_to_the_interpreter_never_reach_it(self, folder: Path) -> None:
        env = make(folder, kinds="quest")
        _, before = env.reset(options={"task": "quest/train/000000"})
        for action in ("quit", "restart", "save", "undo", "look. look", "take all"):
            observation, _, terminated, _, info = env.step(action)
            assert (observation, terminated) == ("You can't do that.", False)
            assert info == before

    def test_a_game_is_made_once_and_is_the_same_when_made_again(self, folder: Path, tmp_path: Path) -> None:
        task = "cooking/train/000000"
        kept = game_file(task, "easy", 0, folder)
        written = kept.stat().st_mtime_ns
        assert game_file(task, "easy", 0, folder) == kept
        assert kept.stat().st_mtime_ns == written
        one, other = make(folder, kinds="cooking"), make(tmp_path, kinds="cooking")
        assert one.reset(options={"task": task}) == other.reset(options={"task": task})
        for action in one.plan():
            assert one.step(action) == other.step(action)

    def test_a_map_without_room_for_the_quest_is_drawn_again(self, folder: Path) -> None:
        """With this task's own seed TextWorld gives up."""
        env = make(folder, kinds="treasure_hunter")
        env.reset(options={"task": "treasure_hunter/train/000001"})
        for action in env.plan():
            info = env.step(action)[4]
        assert info["success"]

    def test_a_failed_generator_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = tmp_path / "make_game.py"
        broken.write_text("raise SystemExit('no inform7 here')")
        monkeypatch.setattr(games.make_game, "__file__", str(broken))
        with pytest.raises(RuntimeError, match="no inform7 here"):
            game_file("quest/train/000009", "easy", 0, tmp_path / "games")
