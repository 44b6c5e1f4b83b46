"""What purchases are worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from env_wrappers.webshop.products import Product
from env_wrappers.webshop.reward import Goal, basic_color, score, similarity

PRODUCT = Product(
    asin="G000000001",
    title="Acme Cotton Dress for Summer",
    description="With Lace Trim.",
    bullets=("Machine Wash",),
    prices=(20.0,),
    options={"color": ("navy blue", "black2070"), "size": ("small", "large")},
    attributes=("long sleeve",),
    category="fashion",
    query="dresses",
    product_category="Clothing › Women › Dresses",
    nouns=("acme", "cotton", "dress", "summer"),
)
GOAL = Goal(
    asin="G000000001",
    instruction="Find me a dress",
    category="fashion",
    query="dresses",
    product_category="Clothing › Women › Dresses",
    nouns=("acme", "cotton", "dress", "summer"),
    attributes=("long sleeve", "lace trim"),
    options={"color": "navy blue", "size": "small"},
    price_upper=30.0,
)


@pytest.mark.parametrize(
    ("first", "second", "percent"),
    [
        ("long sleeve", "sleeve, LONG!", 100),  # order, case and punctuation do not matter
        ("machine wash", "machine washable", 86),
        ("small", "x-small", 100),  # all words of one are in the other
        ("heel", "heels", 89),
        ("heel", "hemp", 50),
        ("café", "caf", 100),  # letters of Latin-1 are dropped
        ("", "anything", 0),
        ("!!", "!!", 0),
    ],
)
def test_similarity_is_that_of_word_sets(first: str, second: str, percent: int) -> None:
    assert similarity(first, second) == similarity(second, first) == percent


def test_the_first_known_colour_is_the_colour() -> None:
    assert basic_color("navy blue") == "blue"  # in the order of the list, not of the words
    assert basic_color("black2070") == "black"
    assert basic_color("nothing") == "nothing"


def test_the_wanted_product_with_its_options_is_worth_one() -> None:
    worth, details = score(PRODUCT, GOAL, 20.0, ["navy blue", "small"])
    assert worth == 1
    assert details["r_type"] == details["r_att"] == details["r_option"] == 1
    assert details["w_att"] + details["w_option"] + details["w_price"] == 1


@pytest.mark.parametrize(
    ("product", "price", "chosen", "expected"),
    [
        (PRODUCT, 30.01, ["navy blue", "small"], 4 / 5),
        (PRODUCT, 20.0, ["navy blue"], 4 / 5),
        (PRODUCT, 20.0, [], 3 / 5),
        (replace(PRODUCT, description=""), 20.0, ["navy blue", "small"], 4 / 5),
        (replace(PRODUCT, nouns=("shoe",)), 20.0, ["navy blue", "small"], 0),
        (replace(PRODUCT, query="shoes", product_category="x › y"), 20.0, ["navy blue", "small"], 1),
        (replace(PRODUCT, query="x", product_category="x", nouns=("acme",)), 20.0, ["navy blue", "small"], 1),
    ],
)
def test_what_is_missing_costs_its_share(product: Product, price: float, chosen: list[str], expected: float) -> None:
    assert score(product, GOAL, price, chosen)[0] == pytest.approx(expected)


def test_kinds_of_products_that_share_little_count_half_or_a_tenth() -> None:
    goal = replace(GOAL, nouns=tuple("abcdefghijkl"))
    other = replace(PRODUCT, query="x", product_category="x")
    half = score(replace(other, nouns=("a", "b")), goal, 20.0, ["navy blue", "small"])[0]
    tenth = score(replace(other, nouns=("a",)), goal, 20.0, ["navy blue", "small"])[0]
    assert (half, tenth) == (0.5, 0.1)
    assert score(other, replace(goal, nouns=()), 20.0, ["navy blue", "small"])[1]["title_score"] == 0.2


def test_the_switch_mends_colours_that_only_the_purchase_was_normalised_in() -> None:
    goal = replace(GOAL, options={"color": "black2070", "size": "small"})
    assert score(PRODUCT, goal, 20.0, ["black2070", "small"])[0] == 4 / 5
    assert score(PRODUCT, goal, 20.0, ["black2070", "small"], normalise_goal_colors=True)[0] == 1


def test_options_of_human_goals_are_values_alone() -> None:
    goal = replace(GOAL, options=("black2070",))
    assert score(PRODUCT, goal, 20.0, ["black2070"])[0] == 1


def test_a_goal_without_attributes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Find me a dress.*attribute"):
        replace(GOAL, attributes=())
