"""Against what the published environment and its search engine did."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.webshop import goals
from env_wrappers.webshop.analysis import terms
from env_wrappers.webshop.catalogue import Catalogue, build
from env_wrappers.webshop.env import WebShopEnv
from env_wrappers.webshop.nouns import title_nouns
from env_wrappers.webshop.official import find_files, read_products
from env_wrappers.webshop.reward import score

Record = dict[str, Any]


@pytest.fixture(scope="module")
def env(official_folder: Path) -> WebShopEnv:
    return WebShopEnv(catalogue=official_folder)


def start(env: WebShopEnv, episode: Record, as_task: bool = False) -> tuple[str, Record]:
    own = {"goal": episode["goal"], "prices": {episode["goal"]["asin"]: episode["price"]}}
    return env.reset(options={"task": own} if as_task else own)


def test_every_recorded_episode_replays_with_the_same_pages_buttons_and_rewards(
    env: WebShopEnv, episodes: list[Record]
) -> None:
    assert sum(len(episode["steps"]) for episode in episodes) == 458
    for number, episode in enumerate(episodes):
        observation, info = start(env, episode, as_task=number % 2 == 0)
        assert observation == episode["reset_obs"]
        for step in episode["steps"]:
            assert info["available"] == step["available"]
            observation, reward, terminated, _, info = env.step(step["action"])
            assert observation == step["obs"]
            assert (reward, terminated) == (step["reward"], step["done"])
            assert info["reward_info"] == step["reward_info"]
            assert info["score"] == step["reward"]


def test_queries_have_the_terms_of_lucene(queries: list[Record]) -> None:
    for record in queries:
        assert terms(record["query"]) == record["tokens"], record["query"]


def test_search_ranks_as_lucene_does(official: Catalogue, queries: list[Record]) -> None:
    ten = fifty = 0
    for record in queries:
        found = [official.products[row].asin for row in official.search(record["query"])]
        expected = [asin for asin, _ in record["top50"]]
        ten += found[:10] == expected[:10]
        fifty += set(found) == set(expected)
    assert ten >= 0.97 * len(queries)
    assert fifty >= 0.99 * len(queries)
    # Measured: all of them. Less is a change for the worse, even if it is within what is promised.
    assert (ten, fifty) == (600, 600)


def test_there_are_as_many_goals_as_published_and_as_many_cannot_be_reached(official: Catalogue) -> None:
    pairs = official.pairs["synthetic"]
    unreached: Counter[bool] = Counter()
    for number in range(len(pairs)):
        goal = official.goal("synthetic", number)
        row = official.row_of(goal.asin)
        assert row is not None
        product = official.products[row]
        assert isinstance(goal.options, dict)
        for fixed in (False, True):
            best, _ = score(product, goal, 0.0, list(goal.options.values()), fixed)
            unreached[fixed] += best < 1
    assert (len(pairs), len(set(pairs[:, 0].tolist()))) == (6910, 415)
    assert unreached == {False: 458, True: 0}


def test_a_goals_price_limit_is_one_of_the_next_four_tens(official: Catalogue) -> None:
    for number in range(0, 6910, 97):
        goal = official.goal("synthetic", number)
        row = official.row_of(goal.asin)
        assert row is not None
        price = official.products[row].price()
        if goal.price_upper == goals.NO_LIMIT:
            assert "price lower" not in goal.instruction
        else:
            first = 10 * (price // 10 + 1)
            assert goal.price_upper in {first + 10, first + 20, first + 30}
            assert goal.instruction.endswith(f", and price lower than {goal.price_upper:.2f} dollars")


def test_nouns_told_by_their_form_seldom_change_what_kind_of_product_it_is(official: Catalogue) -> None:
    """Without the tagger's nouns most scores stay; the docs say how many."""
    rng = random.Random(0)
    plain = {product.asin: title_nouns(product.title) for product in official.products}
    same = 0
    for _ in range(1000):
        wanted = rng.choice(official.products)
        # Half of the pairs are alike, as what one buys is like what one wants.
        alike = [other for other in official.products if other.query == wanted.query]
        bought = rng.choice(alike if rng.random() < 0.5 else official.products)
        tagged = _kind_score(bought.nouns, wanted.nouns)
        same += (tagged == 0, tagged < 0.1) == (
            (formal := _kind_score(plain[bought.asin], plain[wanted.asin])) == 0,
            formal < 0.1,
        )
    assert same >= 920


def _kind_score(bought: tuple[str, ...], wanted: tuple[str, ...]) -> float:
    return len(set(bought) & set(wanted)) / len(wanted) if wanted else 0.2


def test_a_step_takes_less_than_a_fifth_of_a_millisecond(env: WebShopEnv, episodes: list[Record]) -> None:
    def seconds_a_step() -> float:
        begin = time.thread_time()
        for episode in episodes:
            start(env, episode)
            for step in episode["steps"]:
                env.step(step["action"])
        return (time.thread_time() - begin) / 458

    assert min(seconds_a_step() for _ in range(5)) < 2e-4


def test_a_thousand_products_are_indexed_in_less_than_a_second(official_folder: Path) -> None:
    products = list(read_products(find_files(official_folder)))
    begin = time.thread_time()
    build("the official products", products)
    assert time.thread_time() - begin < 1
