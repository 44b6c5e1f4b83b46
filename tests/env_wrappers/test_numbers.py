"""Numbers as arguments: numpy's count as Python's do, and what is no number is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import env_wrappers  # noqa: F401 (registers the environments)
from env_wrappers.panels import panel_from_split

ALFWORLD, WEBSHOP = "env_wrappers/ALFWorld-v0", "env_wrappers/WebShop-v0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


NUMBERS: list[tuple[str, Callable[[Any], dict[str, Any]]]] = [
    (ALFWORLD, lambda n: {"num_tasks": {"train": n}}),
    (ALFWORLD, lambda n: {"max_receptacles": n, "max_objects": n}),
    (WEBSHOP, lambda n: {"num_products": n}),
    (WEBSHOP, lambda n: {"num_tasks": {"test": n}}),
    ("env_wrappers/TextCraft-v0", lambda n: {"depths": n}),
    ("env_wrappers/TextCraft-v0", lambda n: {"depths": [n]}),
    ("env_wrappers/TextCraft-v0", lambda n: {"distractors": n, "num_tasks": {"train": n}}),
]
WITH_EXTRAS = [
    pytest.param("env_wrappers/TextWorld-v0", lambda n: {"num_tasks": {"train": n}}, marks=pytest.mark.textworld),
    ("env_wrappers/TextWorldExpress-v0", lambda n: {"num_tasks": n}),
    ("env_wrappers/ScienceWorld-v0", lambda n: {"num_tasks": n}),
]


@pytest.mark.parametrize(("env_id", "arguments"), NUMBERS)
@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_numpy_counts_as_python_does(env_id: str, arguments: Any, number: Any) -> None:
    made, plain = (gymnasium.make(env_id, **arguments(n)).unwrapped for n in (number, 3))
    split = "test" if env_id == WEBSHOP else "train"
    assert made.tasks(split) == plain.tasks(split)
    assert made.reset(seed=number, options={"split": split}) == plain.reset(seed=3, options={"split": split})


@pytest.mark.parametrize(("env_id", "arguments"), WITH_EXTRAS)
def test_numpy_counts_in_environments_that_are_slow_to_start_too(env_id: str, arguments: Any) -> None:
    made, plain = (gymnasium.make(env_id, **arguments(n)).unwrapped for n in (np.int64(3), 3))
    assert made.tasks("train") == plain.tasks("train")


@pytest.mark.parametrize(("env_id", "arguments"), [*NUMBERS, *WITH_EXTRAS])
@pytest.mark.parametrize("number", [True, 2.5, "3", None])
def test_what_is_no_number_is_named(env_id: str, arguments: Any, number: Any) -> None:
    given = arguments(number)
    if number is None and None in given.values() and not {"num_products", "depths", "distractors"} & given.keys():
        return  # None is how these settings say that there is no limit
    key = next(iter(given))
    with pytest.raises(ValueError, match=key):
        gymnasium.make(env_id, **given)


def test_a_panel_of_an_environment_with_numpys_numbers_is_the_same() -> None:
    one, other = (gymnasium.make(ALFWORLD, num_tasks={"train": n}) for n in (np.int64(3), 3))
    assert panel_from_split(one, "train").digest == panel_from_split(other, "train").digest


def test_a_task_by_its_number_and_a_seed_may_be_numpys() -> None:
    shop = gymnasium.make(WEBSHOP, num_products=50)
    for number in (np.int64(3), np.int32(3), np.array(3)):
        assert shop.reset(options={"task": number})[1]["task"] == "synthetic/000003"
    with pytest.raises(ValueError, match="task'\\]=True"):
        shop.reset(options={"task": True})
    for env_id in (ALFWORLD, WEBSHOP, "env_wrappers/TextCraft-v0"):
        env = gymnasium.make(env_id)
        assert env.reset(seed=np.int64(3)) == env.reset(seed=3)
        task = env.get_wrapper_attr("tasks")(env.unwrapped.splits[0])[1]
        assert env.reset(options={"task": np.str_(task)})[1]["task"] == task
        assert type(env.reset(options={"task": np.str_(task)})[1]["task"]) is str
