"""`proxmo play` and `proxmo eval` with players that need no Ray: a person, scripts, a policy in this process."""

from __future__ import annotations

import io
import json
import random
import sys

import pytest

from env_wrappers.textcraft.env import TextCraftEnv
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.cli import eval as evaluate
from proxmo_rllib.cli import play
from proxmo_rllib.evaluation.contest import Attempt
from proxmo_rllib.evaluation.entries import Key
from proxmo_rllib.evaluation.players import ScriptOnPanel, make_script

ENV = "env_wrappers/ALFWorld-v0"


def test_a_person_plays_with_actions_listed_and_typed(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\ngo to toilet 1\nfly\nquit\n"))
    assert play.main([ENV, "--task", "generated/train/000000", "env_config.rooms=bathroom"]) == 0
    shown = capsys.readouterr().out
    assert "Your task is to:" in shown
    assert "inventory" in shown  # the list
    assert "You arrive at toilet 1" in shown
    assert "Nothing happens" in shown
    assert "unfinished" in shown


def test_an_installed_example_is_played_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("quit\n"))
    assert play.main(["quickstart", "--split", "valid_unseen"]) == 0
    assert "Your task is to:" in capsys.readouterr().out


def test_the_end_of_the_input_ends_the_game(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert play.main([ENV]) == 0
    assert "unfinished" in capsys.readouterr().out


def test_an_expert_can_be_watched_until_it_succeeds(capsys):
    assert play.main([ENV, "--agent", "expert", "--seed", "1", "env_config.rooms=bathroom"]) == 0
    shown = capsys.readouterr().out
    assert "success after" in shown
    assert "> go to" in shown


def test_the_last_observation_is_shown_however_it_ends(capsys):
    words = [ENV, "--agent", "random", "--seed", "1", "--max-turns", "3", "env_config.rooms=bathroom"]
    assert play.main(words) == 0
    last, verdict = capsys.readouterr().out.strip().splitlines()[-2:]
    assert not last.startswith(">")
    assert verdict.startswith("truncated after 3 turns")


def test_a_task_that_is_not_there_is_named(capsys):
    assert play.main([ENV, "--task", "nowhere/land"]) == 1
    assert "'nowhere/land'" in capsys.readouterr().err


def test_a_policy_can_be_watched_without_ray(tiny_policy, capsys):
    words = [ENV, "--agent", str(tiny_policy), "--max-turns", "2", "--seed", "1", "env_config.rooms=bathroom"]
    assert play.main(words) == 0
    assert "truncated after 2 turns" in capsys.readouterr().out


def test_an_environment_that_is_not_there_is_named(capsys):
    assert play.main(["env_wrappers/Nothing-v0"]) == 1
    assert ENV in capsys.readouterr().err


def test_completion_offers_what_is_admissible():
    readline = pytest.importorskip("readline")
    before = readline.get_completer()
    with play.completing(["go to bed 1", "go to desk 1", "look"]):
        complete = readline.get_completer()
        assert [complete("go to", state) for state in range(3)] == ["go to bed 1", "go to desk 1", None]
    assert readline.get_completer() is before


def test_an_expert_solves_the_panel_and_a_random_player_does_not(tmp_path, capsys):
    panel = "alfworld-generated-unseen-200"
    assert evaluate.main(["expert", "random", "--panel", panel, "max_turns=50", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "look_at_obj_in_light" in shown  # by task type
    expert, chance = json.loads((tmp_path / "results.json").read_text())["players"]
    assert expert["success"]["all"]["rate"] > 0.95
    low, high = expert["success"]["all"]["interval"]
    assert low < expert["success"]["all"]["rate"] <= high
    assert expert["episodes"] == 200
    assert chance["success"]["all"]["rate"] < 0.05


def test_the_data_of_a_panel_lies_where_the_settings_say(shared, tmp_path, monkeypatch):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    words = ["expert", "--panel", "webshop-test-500", f"env_config.catalogue={shared / 'data/webshop'}"]
    assert evaluate.main([*words, "max_turns=15", "--output", str(tmp_path)]) == 0
    (player,) = json.loads((tmp_path / "results.json").read_text())["players"]
    assert player["success"]["all"]["rate"] > 0.8
    assert player["score"]["all"]["mean"] > 0.8


def test_an_evaluation_is_the_same_every_time():
    config = ProxMOConfig().environment(ENV).evaluation(panel="alfworld-generated-unseen-200").env_runners(max_turns=5)
    panel = config.resolved_panel()
    assert panel is not None
    played: list[list[str]] = [[], []]
    for actions in played:
        ScriptOnPanel(config, panel, "random").play(
            [Attempt(Key(index, repeat)) for index in range(20) for repeat in range(2)],
            lambda attempt, episode, to=actions: to.extend(turn.action for turn in episode.turns),
        )
    assert len(played[0]) == 200
    assert played[0] == played[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["expert"], "--panel or --config"),
        (["expert", "--panel", "nothing"], "alfworld-seen-140"),
        (["./nothing"], "no such folder"),
        (["some/model"], "--config"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(words, says, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert evaluate.main(words) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"), [(["max_turns=3"], "say who plays"), (["expert", "random", "expert"], "expert is named twice")]
)
def test_somebody_plays_and_nobody_twice(words, says, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(words)
    assert says in capsys.readouterr().err


def test_where_no_expert_was_written_the_plan_of_an_environment_is_it():
    env = TextCraftEnv()  # not by its registered id, so that it counts as another's
    script = make_script("expert", env, random.Random(0))
    observation, info = env.reset(options={"task": "textcraft/test/000000"})
    plan = env.plan()
    script.reset(observation, info)
    assert [script.act("", info) for _ in plan] == plan


def test_an_expert_plays_an_environment_by_its_id(capsys):
    for number in range(3):
        task = f"textcraft/test/{number:06d}"
        assert play.main(["env_wrappers/TextCraft-v0", "--agent", "expert", "--task", task]) == 0
        assert "success after" in capsys.readouterr().out


def test_a_random_player_fills_the_gaps_of_actions(capsys):
    words = ["env_wrappers/WebShop-v0", "--agent", "random", "--seed", "3", "--max-turns", "30"]
    assert play.main(words) == 0
    shown = capsys.readouterr().out
    assert "> search[" in shown
    assert "<query>" not in shown
    assert "Page 1" in shown  # something was found


def test_an_environment_without_an_expert_is_said():
    import gymnasium

    with pytest.raises(ValueError, match=r"CartPole.*has none.*plan"):
        make_script("expert", gymnasium.make("CartPole-v1"), random.Random(0))


@pytest.mark.parametrize("name", ["Corridor", "make_corridor"])
def test_an_environment_of_ones_own_is_played_by_module_and_name(tmp_path, monkeypatch, capsys, name):
    (tmp_path / f"mine_{name.lower()}.py").write_text(
        "import gymnasium\n"
        "from env_wrappers.core import AnyText\n"
        "class Corridor(gymnasium.Env):\n"
        "    observation_space = action_space = AnyText()\n"
        "    def __init__(self, length=2):\n"
        "        self.length = length\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.place = 0\n"
        "        return 'A corridor.', {'success': False}\n"
        "    def step(self, action):\n"
        "        self.place += 1\n"
        "        won = self.place == self.length\n"
        "        return f'Place {self.place}.', float(won), won, False, {'success': won}\n"
        "def make_corridor(config):\n"
        "    return Corridor(**config)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.stdin", io.StringIO("walk\nwalk\nwalk\n"))
    assert play.main([f"mine_{name.lower()}:{name}", "env_config.length=3"]) == 0
    assert "success after 3 turns" in capsys.readouterr().out
    assert play.main([f"mine_{name.lower()}:Nothing"]) == 1
    assert "neither has nor registers 'Nothing'" in capsys.readouterr().err
