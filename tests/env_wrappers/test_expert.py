"""The searching expert: a teacher that knows only what it has read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from env_wrappers.alfworld.env import ALFWorldEnv
from env_wrappers.alfworld.expert import CLEAN, LOOK, PICK, PICK_TWO, Assignment, Notebook, SearchingExpert, parse_task

SMALL = {"max_receptacles": 8, "max_objects": 8}


def play(
    env: ALFWorldEnv, expert: SearchingExpert, task: str, limit: int = 50, slips: float = 0.0
) -> tuple[bool, list[str]]:
    """Success and actions of one episode, with a share of actions that the expert would not have done."""
    observation, info = env.reset(options={"task": task})
    expert.reset(observation, info)
    actions: list[str] = []
    while not info["success"] and len(actions) < limit:
        action = expert.act(observation, info)
        if expert.rng.random() < slips:
            action = expert.slip(info)
        observation, _, _, _, info = env.step(action)
        actions.append(action)
    return info["success"], actions


def success_rate(env: ALFWorldEnv, tasks: list[str], slips: float = 0.0, shuffle: float = 0.0) -> float:
    expert = SearchingExpert(random.Random(0), shuffle)
    return sum(play(env, expert, task, slips=slips)[0] for task in tasks) / len(tasks)


def test_it_solves_every_generated_game() -> None:
    env = ALFWorldEnv(**SMALL)
    assert success_rate(env, env.tasks("train")[:120]) == 1
    assert success_rate(env, env.tasks("valid_unseen")[:60]) == 1


def test_it_solves_nearly_every_game_in_rooms_of_full_size() -> None:
    env = ALFWorldEnv()
    assert success_rate(env, env.tasks("train")[:120]) >= 0.98


def test_it_solves_nearly_every_real_game(games_file: Path) -> None:
    env = ALFWorldEnv(games=games_file)
    assert success_rate(env, env.tasks("valid_seen") + env.tasks("train")) >= 0.95


@pytest.mark.slow
def test_it_solves_all_real_games_and_nearly_all_in_fifty_steps(shared: Path) -> None:
    env = ALFWorldEnv(games=shared / "data/alfworld")
    expert = SearchingExpert(random.Random(0))
    for split in ("train", "valid_seen"):
        episodes = [play(env, expert, task, limit=120) for task in env.tasks(split)]
        assert all(success for success, _ in episodes)
        assert sum(len(actions) <= 50 for _, actions in episodes) >= 0.98 * len(episodes)


def test_it_recovers_from_actions_that_others_did() -> None:
    env = ALFWorldEnv(**SMALL)
    assert success_rate(env, env.tasks("train")[:120], slips=0.2, shuffle=0.5) >= 0.98


def test_it_searches_as_one_who_does_not_know() -> None:
    """It looks in vain sometimes, which the oracle never does, and knows nothing but the text."""
    env = ALFWorldEnv(**SMALL)
    expert = SearchingExpert(random.Random(0))
    misses = 0
    for task in env.tasks("train")[:60]:
        _, actions = play(env, expert, task)
        searched = actions[: next(i for i, action in enumerate(actions) if action.startswith("take"))]
        misses += sum(action.startswith("go to") for action in searched) > 1
    assert misses >= 15


def test_without_slips_every_action_is_admissible() -> None:
    env = ALFWorldEnv(**SMALL)
    expert = SearchingExpert(random.Random(0))
    for task in env.tasks("train")[:30]:
        observation, info = env.reset(options={"task": task})
        expert.reset(observation, info)
        while not info["success"]:
            action = expert.act(observation, info)
            assert action in info["admissible_actions"]
            observation, _, _, _, info = env.step(action)


def test_the_same_seed_plays_the_same_episodes() -> None:
    env = ALFWorldEnv(**SMALL)
    tasks = env.tasks("train")[:12]

    def episodes(seed: int) -> list[list[str]]:
        expert = SearchingExpert(random.Random(seed), shuffle=0.5)
        return [play(env, expert, task, slips=0.3)[1] for task in tasks]

    assert episodes(3) == episodes(3)
    assert episodes(3) != episodes(4)


@pytest.mark.parametrize(
    ("sentence", "assignment"),
    [
        ("put some toiletpaper on toiletpaperhanger.", Assignment(PICK, "toiletpaper", "toiletpaperhanger")),
        ("put a clean mug in coffeemachine", Assignment(CLEAN, "mug", "coffeemachine")),
        ("clean some apple and put it in fridge.", Assignment(CLEAN, "apple", "fridge")),
        ("find two pen and put them in desk.", Assignment(PICK_TWO, "pen", "desk")),
        ("examine the book with the desklamp.", Assignment(LOOK, "book", "desklamp")),
    ],
)
def test_a_task_is_read_from_its_sentence(sentence: str, assignment: Assignment) -> None:
    assert parse_task(sentence) == assignment


def test_a_task_in_a_persons_words_is_refused() -> None:
    with pytest.raises(ValueError, match="bring me the blue cup"):
        parse_task("bring me the blue cup")


def test_the_notebook_holds_what_was_read() -> None:
    known = Notebook("You are in a room. Looking quickly around you, you see a bed 1, and a drawer 2.\n\n"
                     "Your task is to: put a pen in drawer.")  # fmt: skip
    assert known.receptacles == ["bed 1", "drawer 2"]
    known.read("You arrive at drawer 2. The drawer 2 is closed.")
    assert (known.location, known.closed, known.contents) == ("drawer 2", {"drawer 2"}, {})
    known.read("You open the drawer 2. The drawer 2 is open. In it, you see a pen 1, and a pen 3.")
    assert (known.closed, known.contents) == (set(), {"drawer 2": ["pen 1", "pen 3"]})
    known.read("You pick up the pen 3 from the drawer 2.")
    assert (known.holding, known.taken_from, known.contents) == ("pen 3", "drawer 2", {"drawer 2": ["pen 1"]})
    known.read("Nothing happens.")
    assert known.holding == "pen 3"
