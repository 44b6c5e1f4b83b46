"""Shoppers: the ceiling, and the teacher."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from env_wrappers.core import is_admissible
from env_wrappers.webshop.env import WebShopEnv
from env_wrappers.webshop.experts import TURNS, HastyShopper, Oracle, ReadingShopper, read_instruction


def play(env: WebShopEnv, shopper: Oracle | ReadingShopper, task: str, slips: float = 0.0) -> tuple[float, list[str]]:
    """Score and actions of one episode, with a share of actions that the shopper would not have done."""
    observation, info = env.reset(options={"task": task})
    shopper.reset(observation, info)
    actions: list[str] = []
    terminated = False
    while not terminated and len(actions) < TURNS:
        action = shopper.act(observation, info)
        if isinstance(shopper, ReadingShopper) and shopper.rng.random() < slips:
            action = shopper.slip(info)
        assert is_admissible(action, info["admissible_actions"]), action
        observation, _, terminated, _, info = env.step(action)
        actions.append(action)
    return info["score"], actions


def mean_score(env: WebShopEnv, shopper: Oracle | ReadingShopper, number: int, slips: float = 0.0) -> float:
    tasks = env.tasks("test")[:number]
    return sum(play(env, shopper, task, slips)[0] for task in tasks) / len(tasks)


@pytest.mark.parametrize("kind", ["synthetic", "human"])
def test_who_knows_the_goal_scores_one_on_every_generated_task(kind: str) -> None:
    env = WebShopEnv(goals=kind)
    assert mean_score(env, Oracle(env), 200) == 1


def test_who_reads_does_well_on_generated_tasks() -> None:
    assert mean_score(WebShopEnv(), ReadingShopper(random.Random(0)), 100) >= 0.95
    assert mean_score(WebShopEnv(goals="human"), ReadingShopper(random.Random(0)), 100) >= 0.85


def test_both_do_well_on_official_tasks(official_folder: Path) -> None:
    env = WebShopEnv(catalogue=official_folder)
    assert mean_score(env, Oracle(env), 200) >= 0.98
    assert mean_score(env, ReadingShopper(random.Random(0)), 200) >= 0.9


def test_who_is_hasty_buys_sooner_and_worse() -> None:
    env = WebShopEnv()
    hasty, patient = HastyShopper(random.Random(0)), ReadingShopper(random.Random(0))
    assert 0.6 < mean_score(env, hasty, 100) < 0.9 < mean_score(env, patient, 100)
    tasks = env.tasks("test")[:50]
    assert sum(len(play(env, hasty, t)[1]) for t in tasks) < 0.8 * sum(len(play(env, patient, t)[1]) for t in tasks)


def test_it_recovers_from_what_others_did() -> None:
    assert mean_score(WebShopEnv(), ReadingShopper(random.Random(0)), 100, slips=0.15) >= 0.7


def test_the_same_seed_plays_the_same_episodes() -> None:
    env = WebShopEnv()

    def episodes(seed: int) -> list[list[str]]:
        shopper = ReadingShopper(random.Random(seed))
        return [play(env, shopper, task, slips=0.3)[1] for task in env.tasks("train")[:12]]

    assert episodes(3) == episodes(3)
    assert episodes(3) != episodes(4)


def test_an_instruction_is_read_by_its_form() -> None:
    wanted = read_instruction(
        "Find me slim fit men's pants with elastic waist with color: navy, and size: 30w x 32l, and price lower than "
        "70.00 dollars"
    )
    assert wanted.options == {"color": "navy", "size": "30w x 32l"}
    assert wanted.limit == 70
    assert {"slim", "pant", "elast", "waist"} <= wanted.words
    assert not wanted.words & {"find", "me", "navi", "price"}
    own = read_instruction("i want: a hat, and a coat: blue")
    assert (own.options, own.limit) == ({}, float("inf"))


def test_too_few_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="turns=3"):
        ReadingShopper(random.Random(0), turns=3)
