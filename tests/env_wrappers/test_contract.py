"""What every environment of the package promises. A new environment gets an entry in `CASES`."""

from __future__ import annotations

import copy
import pickle
import random
import string
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import env_wrappers
from env_wrappers.alfworld.oracle import solution
from env_wrappers.conformance import check_environment
from env_wrappers.core import REQUIRED_INFO, is_admissible
from env_wrappers.webshop.env import WebShopEnv
from env_wrappers.webshop.experts import Oracle


@dataclass(frozen=True)
class Case:
    """An environment under test."""

    env_id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    tasks: int = 3  # how many of them are played
    fuzz: int = 10_000  # random actions
    steps: int = 25  # admissible actions in a row
    refusal: str = "Nothing happens."  # how an answer to an action that means nothing begins
    twins: int = 50  # admissible actions that are tried in each of these steps
    can_be_lost: bool = False
    words: tuple[str, ...] = ()  # more words for the random actions
    end: str = ""  # what closes an action: anything behind it is ignored


CASES = {
    "alfworld": Case("env_wrappers/ALFWorld-v0"),
    "alfworld-small": Case(
        "env_wrappers/ALFWorld-v0", {"rooms": ("bathroom", "bedroom"), "max_receptacles": 4, "max_objects": 3}
    ),
    "webshop": Case(
        "env_wrappers/WebShop-v0",
        words=(
            "search[",
            "click[",
            "]",
            "click[< prev]",
            "click[next >]",
            "click[search]",
            "search[ ]",
            "[",
            "click[]",
        ),
        end="]",
        can_be_lost=True,
    ),
    "webshop-human": Case(
        "env_wrappers/WebShop-v0",
        {"goals": "human", "division": "disjoint", "normalise_goal_colors": True, "num_products": 300},
        words=("search[tea]", "click[back to search]", "click[features]", "click[buy now"),
        end="]",
        can_be_lost=True,
    ),
    "textcraft": Case("env_wrappers/TextCraft-v0"),
    "textcraft-shallow": Case("env_wrappers/TextCraft-v0", {"depths": 1, "distractors": 0}),
    "textworld-express": Case("env_wrappers/TextWorldExpress-v0", refusal="Unknown action", twins=5, can_be_lost=True),
}
# Engines of others, which take minutes.
SLOW_CASES = {
    "alfworld-official": Case(
        "env_wrappers/ALFWorld-v0",
        {"engine": "textworld", "rooms": ("bathroom",), "max_receptacles": 3, "max_objects": 2},
        tasks=1,
        fuzz=5,
        steps=5,
        twins=2,
    ),
    "textworld": Case(
        "env_wrappers/TextWorld-v0",
        {"kinds": "cooking,quest", "num_tasks": {"train": 1}},
        tasks=2,
        fuzz=500,
        steps=8,
        refusal="You can't do that.",
        twins=3,
        can_be_lost=True,
    ),
    "scienceworld": Case(
        "env_wrappers/ScienceWorld-v0",
        {"task_types": "find-plant,melt"},
        tasks=2,
        steps=4,
        refusal="No known action",
        twins=1,
        can_be_lost=True,
    ),
}
NEED_TEXTWORLD = ("alfworld-official", "textworld")


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow, *([pytest.mark.textworld] if name in NEED_TEXTWORLD else [])]


@pytest.fixture(
    params=[*CASES, *(pytest.param(name, marks=marks_of(name)) for name in SLOW_CASES)],
    scope="module",
)
def case(request: pytest.FixtureRequest) -> Case:
    return (CASES | SLOW_CASES)[request.param]


@pytest.fixture
def env(case: Case) -> Iterator[gymnasium.Env[str, str]]:
    env = gymnasium.make(case.env_id, **case.kwargs)
    yield env
    env.close()


def some_tasks(case: Case, env: gymnasium.Env[str, str]) -> list[str]:
    return random.Random(0).sample(env.unwrapped.tasks("train"), case.tasks)


def concrete(actions: list[str]) -> list[str]:
    """Without patterns that stand for free text, where there are others."""
    return [action for action in actions if "<" not in action] or actions


def walk(env: gymnasium.Env[str, str], actions: list[str], steps: int, seed: int) -> list[tuple[Any, ...]]:
    """Outcomes of admissible actions at random, until none is left."""
    rng = random.Random(seed)
    outcomes: list[tuple[Any, ...]] = []
    while actions and len(outcomes) < steps:
        # What ends an episode is seldom chosen, so that there is something to see.
        options = concrete(actions)
        action = min(rng.sample(options, min(3, len(options))), key="click[buy now]".__eq__)
        outcome = env.step(action)
        outcomes.append(outcome)
        actions = outcome[4]["admissible_actions"]
    return outcomes


def strange_actions(number: int, more_words: tuple[str, ...] = ()) -> Iterator[str]:
    yield from ("", " ", "\n", "\0", "go to", "take  from ", "\ud800", "🪑" * 50, "look\r\nlook", "x" * 1_000_000)
    rng = random.Random(0)
    words = [
        "go",
        "to",
        "take",
        "from",
        "move",
        "open",
        "examine",
        "use",
        "with",
        "look",
        "desk",
        "1",
        "-1",
        "\t",
        "None",
        *more_words,
    ]
    for _ in range(number - 10):
        if rng.random() < 0.5:
            yield " ".join(rng.choices(words, k=rng.randint(1, 7)))
        else:
            yield "".join(rng.choices(string.printable + "äß漢\u202e\x07", k=rng.randint(1, 40)))


def test_gymnasium_accepts_it(env: gymnasium.Env[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*render fps.*")
        check_env(env.unwrapped)


def test_the_check_for_users_environments_finds_nothing(case: Case) -> None:
    assert check_environment(case.env_id, arguments=case.kwargs, steps=case.steps) == []


def test_metadata_says_how_a_rollout_may_call_it(env: gymnasium.Env[str, str]) -> None:
    assert isinstance(env.metadata["blocking"], bool)
    assert isinstance(env.metadata["thread_safe"], bool)


def test_spaces_hold_any_string_and_nothing_else(env: gymnasium.Env[str, str]) -> None:
    for space in (env.observation_space, env.action_space):
        assert "漢字 \n\0" * 10_000 in space
        assert "" in space
        assert 3 not in space
        assert space.sample() in space


def test_info_has_what_the_contract_names(case: Case, env: gymnasium.Env[str, str]) -> None:
    for task in some_tasks(case, env):
        observation, info = env.reset(options={"task": task})
        for _ in range(3):
            assert isinstance(observation, str)
            for key, kind in REQUIRED_INFO.items():
                assert isinstance(info[key], kind), key
            assert info["task"] == task
            assert all(isinstance(action, str) for action in info["admissible_actions"])
            observation, reward, terminated, truncated, info = env.step(info["admissible_actions"][0])
            assert isinstance(reward, float)
            assert terminated == info["success"] or (case.can_be_lost and terminated)
            assert truncated is False


def test_tasks_are_unique_and_no_split_shares_one(env: gymnasium.Env[str, str]) -> None:
    lists = [env.unwrapped.tasks(split) for split in env.unwrapped.splits]
    everything = [task for tasks in lists for task in tasks]
    assert len(set(everything)) == len(everything)
    assert lists == [env.unwrapped.tasks(split) for split in env.unwrapped.splits]


def test_the_same_task_and_seed_start_the_same_episode(case: Case, env: gymnasium.Env[str, str]) -> None:
    """Group members compare: another instance, after other episodes, begins and goes on the same way."""
    other = gymnasium.make(case.env_id, **case.kwargs)
    for task in some_tasks(case, env):
        first = env.reset(seed=1, options={"task": task})
        assert first == other.reset(seed=1, options={"task": task})
        assert env.unwrapped.get_state() == other.unwrapped.get_state()
        actions = first[1]["admissible_actions"]
        assert walk(env, actions, case.steps, 5) == walk(other, actions, case.steps, 5)


def test_a_seed_alone_draws_the_same_task(case: Case, env: gymnasium.Env[str, str]) -> None:
    assert env.reset(seed=7) == env.reset(seed=7)
    assert env.reset(seed=7)[1]["task"] in env.unwrapped.tasks("train")


@pytest.mark.parametrize("copied", ["clone", "deepcopy", "pickle", "state"])
def test_a_copy_has_the_same_future_and_its_own(case: Case, env: gymnasium.Env[str, str], copied: str) -> None:
    _, info = env.reset(options={"task": some_tasks(case, env)[0]})
    actions = walk(env, info["admissible_actions"], case.steps, 1)[-1][4]["admissible_actions"]
    source = env.unwrapped
    if copied == "clone":
        twin = source.clone()
    elif copied == "deepcopy":
        twin = copy.deepcopy(source)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(source))
    else:
        twin = gymnasium.make(case.env_id, **case.kwargs).unwrapped
        twin.set_state(pickle.loads(pickle.dumps(source.get_state())))
    before = source.get_state()
    future = walk(twin, actions, case.steps, 2)
    assert source.get_state() == before, "stepping the copy changed the original"
    assert walk(source, actions, case.steps, 2) == future
    assert twin.reset(seed=3) == source.reset(seed=3)


def test_set_state_gives_back_what_was_seen(case: Case, env: gymnasium.Env[str, str]) -> None:
    _, info = env.reset(options={"task": some_tasks(case, env)[0]})
    observation, _, _, _, info = walk(env, info["admissible_actions"], case.steps, 1)[-1]
    state = env.unwrapped.get_state()
    env.reset(seed=1)
    assert env.unwrapped.set_state(state) == (observation, info)


def test_a_snapshot_and_a_pickled_environment_are_small(case: Case, env: gymnasium.Env[str, str]) -> None:
    env.reset(options={"task": some_tasks(case, env)[0]})
    assert len(pickle.dumps(env.unwrapped.get_state())) < 20_000
    assert len(pickle.dumps(env)) < 20_000


def test_strange_actions_never_raise_and_never_change_what_is_possible(
    case: Case, env: gymnasium.Env[str, str]
) -> None:
    _, info = env.reset(options={"task": some_tasks(case, env)[0]})
    spared = env.unwrapped.clone()  # does what is admissible, and nothing else
    for action in strange_actions(case.fuzz, case.words):
        possible, success = info["admissible_actions"], info["success"]
        known = is_admissible((action[: action.rfind(case.end) + 1] if case.end else action).strip(), possible)
        observation, _, _, _, info = env.step(action)
        assert isinstance(observation, str)
        if known:
            spared.step(action)
        else:
            assert (info["admissible_actions"], info["success"]) == (possible, success), repr(action)
    actions = info["admissible_actions"]
    assert walk(env, actions, case.steps, 4) == walk(spared, actions, case.steps, 4)


def test_every_admissible_action_is_accepted(case: Case, env: gymnasium.Env[str, str]) -> None:
    _, info = env.reset(options={"task": some_tasks(case, env)[0]})
    rng = random.Random(3)
    for _ in range(case.steps):
        possible = info["admissible_actions"]
        assert possible == sorted(set(possible))
        assert all(is_admissible(action, possible) for action in possible)
        for action in rng.sample(concrete(possible), min(case.twins, len(concrete(possible)))):
            twin = env.unwrapped.clone()
            assert not twin.step(action)[0].startswith(case.refusal), action
        _, _, terminated, _, info = env.step(rng.choice(concrete(possible)))
        if terminated:
            break


def test_step_before_reset_says_what_to_do(env: gymnasium.Env[str, str]) -> None:
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        env.unwrapped.step("look")
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        env.unwrapped.get_state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "nowhere/land"}, "nowhere/land"),
        ({"task": 1.5}, r"1\.5"),
        ({"tsk": "x"}, "tsk"),
        ({"split": "nowhere"}, "'nowhere'.*train"),
    ],
)
def test_bad_reset_options_are_named(env: gymnasium.Env[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


def test_training_imports_neither_the_official_engine_nor_torch_nor_ray() -> None:
    script = (
        "import sys, gymnasium, env_wrappers, env_wrappers.prompting, env_wrappers.panels\n"
        "env = gymnasium.make('env_wrappers/ALFWorld-v0')\n"
        "env.reset(seed=0)\n"
        "heavy = {'alfworld', 'textworld', 'torch', 'ray', 'transformers', 'proxmo_rllib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_pattern_stands_for_what_fits_into_it() -> None:
    listed = ["look", "move <object> to <other>", "search[<query>]"]
    for action in ("look", "move red cup to table", "search[a lamp]"):
        assert is_admissible(action, listed), action
    for action in ("move cup", "move  to table", "move cup to ", "search[]", "search[ ]", "search[", "loo", "<query>"):
        assert not is_admissible(action, listed), action
    assert not is_admissible("move " + "t" * 1_000_000, listed)  # at once


def win(env: gymnasium.Env[str, str], task: str) -> dict[str, Any]:
    """Plays a task to its end. Returns the last `info`."""
    bare = env.unwrapped
    observation, info = env.reset(options={"task": task})
    if isinstance(bare, WebShopEnv):
        shopper = Oracle(bare)
        shopper.reset(observation, info)
        terminated = False
        while not terminated:
            observation, _, terminated, _, info = env.step(shopper.act(observation, info))
    else:
        for action in bare.plan() if hasattr(bare, "plan") else solution(bare.state.game):
            _, _, terminated, _, info = env.step(action)
            if terminated:
                break
    assert info["success"]
    return info


def test_a_step_after_the_end_changes_nothing(case: Case, env: gymnasium.Env[str, str]) -> None:
    info = win(env, some_tasks(case, env)[0])
    _, _, terminated, truncated, after = env.step([*concrete(info["admissible_actions"]), "look"][0])
    assert (terminated, truncated, after) == (True, False, info)


def test_importing_twice_registers_once() -> None:
    env_wrappers.core.register_all()
    assert "env_wrappers/ALFWorld-v0" in gymnasium.registry
