"""What a table accepts, and what it refuses with which words."""

import numpy as np
import pytest

from proxmo_rllib.advantages import TurnTable, returns_to_go

COLUMNS = {
    "group": ["a", "a", "a"],
    "episode": [0, 0, 1],
    "reward": [0.0, 1.0, 0.0],
    "success": [True, True, False],
    "anchor": ["x", "y", "z"],
}


def test_interleaved_episodes_keep_their_time_order():
    table = TurnTable(
        group=["a"] * 5, episode=[1, 0, 1, 0, 1], reward=[0, 0, 0, 1, 1], success=[True] * 5, anchor=["x"] * 5
    )
    assert table.time_step.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_allclose(returns_to_go(table, 0.5), [0.25, 0.5, 0.5, 1.0, 1.0])


def test_episode_ids_may_repeat_from_group_to_group():
    table = TurnTable(group=["a", "b"], episode=[0, 0], reward=[1.0, 0.0], success=[True, False], anchor=["x", "x"])
    assert table.num_episodes == 2
    assert table.success_rate().tolist() == [1.0, 0.0]


def test_ids_are_any_hashables_and_columns_any_sequences():
    table = TurnTable(
        group=np.array([3, 3]),
        episode=[("seed", 1), "b"],
        reward=np.array([1, 0], dtype=np.float32),
        success=np.array([1, 0]),
        anchor=("x", "y"),
    )
    assert table.group_ids == (3,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_is_an_error_naming_the_row(value):
    with pytest.raises(ValueError, match=r"row 1 \(group 'a', episode 0\) has reward="):
        TurnTable(**(COLUMNS | {"reward": [0.0, value, 0.0]}))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"anchor": ["x", "y"]}, ValueError, "columns of different length"),
        ({"anchor": ["x", None, "z"]}, TypeError, "row 1 has anchor=None of type NoneType"),
        ({"success": [True, False, False]}, ValueError, "row 1 .* same episode"),
        ({"success": [True, 2, False]}, ValueError, "row 1 has success=2"),
        ({"action_valid": [True]}, ValueError, "'action_valid': 1"),
        ({key: [] for key in COLUMNS}, ValueError, "no turns"),
    ],
)
def test_a_wrong_column_is_an_error_that_says_what_to_give(change, error, words):
    with pytest.raises(error, match=words):
        TurnTable(**(COLUMNS | change))


def test_the_invalid_action_penalty_enters_returns_only(small_table):
    returns = returns_to_go(small_table, 0.5, invalid_action_penalty=0.1)
    np.testing.assert_allclose(returns, [0.5, 1.0, -0.05, -0.1, 0.0, 0.0])
    assert small_table.success_rate().tolist() == [0.5, 0.0]


def test_a_penalty_without_the_column_for_it_is_refused():
    with pytest.raises(ValueError, match=r"invalid_action_penalty=0\.1: the table does not say"):
        returns_to_go(TurnTable(**COLUMNS), 0.9, invalid_action_penalty=0.1)
