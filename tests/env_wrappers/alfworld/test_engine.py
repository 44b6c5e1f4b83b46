"""The native engine says what the official one says, character for character."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from env_wrappers.alfworld.engine import State
from env_wrappers.alfworld.oracle import next_command, solution
from env_wrappers.alfworld.problem import Game, GameError, parse_game

Record = dict[str, Any]


@pytest.fixture(scope="module")
def games(real_records: list[Record]) -> dict[str, Game]:
    return {r["path"]: parse_game(r["pddl_problem"], r["task"] + ".") for r in real_records}


def test_recorded_official_episodes_replay_exactly(golden_episodes: list[Record], games_file: Path) -> None:
    env = gymnasium.make("env_wrappers/ALFWorld-v0", games=games_file)
    assert len(golden_episodes) == 24
    states = 0
    for episode in golden_episodes:
        observation, info = env.reset(options={"task": episode["path"]})
        assert observation == episode["reset"]["observation"]
        assert info["admissible_actions"] == episode["reset"]["admissible"]
        assert info["task_type"] == episode["task_type"]
        for step in episode["steps"]:
            observation, reward, terminated, _, info = env.step(step["action"])
            assert observation == step["observation"]
            assert info["admissible_actions"] == step["admissible"]
            assert (info["success"], terminated, reward) == (step["won"], step["won"], float(step["won"]))
            states += 1
    assert states > 500


def test_real_games_are_won_by_the_player_that_knows_all(games: dict[str, Game], real_records: list[Record]) -> None:
    for record in real_records:
        game = games[record["path"]]
        assert game.goal.task_type == record["task_type"]
        commands = solution(game)
        assert commands, record["path"]
        assert len(commands) <= 30


@pytest.mark.textworld
@pytest.mark.parametrize(
    "kwargs",
    [
        {"rooms": ("bathroom",), "max_receptacles": 5},  # with objects on the floor
        {"rooms": ("kitchen",), "max_receptacles": 5, "max_objects": 6},
        {
            "rooms": ("bedroom", "living_room"),
            "task_types": ("look_at_obj_in_light",),
            "max_receptacles": 4,
            "max_objects": 4,
        },
        pytest.param({}, marks=pytest.mark.slow),
    ],
    ids=["bathroom", "kitchen", "light", "any"],
)
def test_generated_games_play_as_in_the_official_engine(kwargs: dict[str, Any]) -> None:
    ours = gymnasium.make("env_wrappers/ALFWorld-v0", **kwargs)
    official = gymnasium.make("env_wrappers/ALFWorld-v0", engine="textworld", **kwargs)
    compare(ours, official, ours.unwrapped.tasks("train")[1], steps=20, seed=0)


@pytest.mark.textworld
@pytest.mark.slow
def test_real_games_of_every_task_type_play_as_in_the_official_engine(games_file: Path) -> None:
    ours = gymnasium.make("env_wrappers/ALFWorld-v0", games=games_file)
    official = gymnasium.make("env_wrappers/ALFWorld-v0", engine="textworld", games=games_file)
    chosen: dict[tuple[str, str], str] = {}
    for split in ("train", "valid_seen"):
        for task in ours.unwrapped.tasks(split):
            chosen.setdefault((split, task.split("/")[1].split("-")[0]), task)
    assert len(chosen) == 12
    won = [compare(ours, official, task, steps=30, seed=seed) for seed, task in enumerate(chosen.values())]
    assert sum(won) >= 6, "hardly a walk reached its goal, so the won flag was hardly compared"


@pytest.mark.textworld
def test_the_official_planner_wins_from_the_middle_of_an_episode() -> None:
    kwargs = {"rooms": ("bathroom",), "max_receptacles": 4, "max_objects": 3}
    official = gymnasium.make("env_wrappers/ALFWorld-v0", engine="textworld", **kwargs)
    _, info = official.reset(seed=0)
    _, _, _, _, info = official.step(info["admissible_actions"][0])
    for command in official.unwrapped.plan():
        _, _, terminated, _, info = official.step(command)
    assert terminated
    assert info["success"]


def compare(ours: gymnasium.Env[str, str], official: gymnasium.Env[str, str], task: str, steps: int, seed: int) -> bool:
    """One walk through both engines: towards the goal, or doing what can be done at a place, or anywhere.

    Returns:
        Whether it was won.
    """
    rng = random.Random(seed)
    first = ours.reset(options={"task": task})
    assert first == official.reset(options={"task": task})
    actions = first[1]["admissible_actions"]
    for _ in range(steps):
        here = [a for a in actions if not a.startswith("go to") and a not in ("help", "inventory", "look")]
        draw = rng.random()
        if draw < 0.4:
            action = next_command(ours.unwrapped.state) or "look"
        elif here and draw < 0.75:
            action = rng.choice(here)
        else:
            action = rng.choice([*actions, "help", " look ", "nonsense"])
        outcome = ours.step(action)
        assert outcome == official.step(action), (task, action)
        actions = outcome[4]["admissible_actions"]
        if outcome[2]:
            return True
    return False


def test_an_action_that_is_not_admissible_changes_nothing(games: dict[str, Game]) -> None:
    for game in list(games.values())[:10]:
        state, untouched = State(game), State(game)
        rng = random.Random(0)
        for _ in range(30):
            assert state.step(rng.choice(["take mug 1 from desk 1", "go to", "GO TO DESK 1", ""])) == "Nothing happens."
            assert facts(state) == facts(untouched)
            command = rng.choice(sorted(state.actions))
            assert state.step(command) == untouched.step(command)


def facts(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__slots__}


def test_a_clone_shares_nothing_that_changes(games: dict[str, Game]) -> None:
    game = next(iter(games.values()))
    state = State(game)
    twin = state.clone()
    assert facts(twin) == facts(state)
    rng = random.Random(1)
    for _ in range(50):
        twin.step(rng.choice(sorted(twin.actions)))
    assert facts(state) == facts(State(game))
    assert twin.game is state.game


MUTILATIONS = {
    "no goal": (lambda text: text[: text.index("(:goal")], r"\(:goal"),
    "no init": (lambda text: text.replace("(:init", "(:start"), r"\(:init"),
    "empty": (lambda text: "", r"\(:init"),
    "unknown fact": (lambda text: text.replace("(pickupable", "(flyable"), "flyable"),
    "agent nowhere": (lambda text: text.replace("(atLocation agent1", "(wasAt agent1"), "wasat"),
    "wrong arguments": (lambda text: text.replace("(:init", "(:init (inReceptacle mug)"), "wrong arguments"),
    **{
        f"a thing without a name {place}": (lambda text, fact=fact: text.replace("(:init", f"(:init ({fact})"), "'0'")
        for place, fact in {
            "in a receptacle": "inReceptacle 0 Desk_bar_1",
            "at a place": "objectAtLocation 0 loc_1",
            "for a receptacle": "receptacleAtLocation 0 loc_1",
            "in another": "inReceptacleObject 0 Mug_bar_1",
        }.items()
    },
    "no arguments": (lambda text: text.replace("(:init", "(:init (pickupable )"), "wrong arguments"),
    "goal of another kind": (lambda text: text[: text.index("(:goal")] + "(:goal (and))", "goal"),
}


@pytest.mark.parametrize("name", MUTILATIONS)
def test_a_corrupt_problem_is_refused_with_its_reason(real_records: list[Record], name: str) -> None:
    mutilate, message = MUTILATIONS[name]
    with pytest.raises(GameError, match=message):
        parse_game(mutilate(real_records[0]["pddl_problem"]), "x.")
