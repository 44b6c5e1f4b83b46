"""A table small enough to compute by hand."""

import pytest

from proxmo_rllib.advantages import TurnTable


@pytest.fixture
def small_table() -> TurnTable:
    """Two groups of two episodes; only in the first one does an episode succeed."""
    return TurnTable(
        group=["a", "a", "a", "a", "b", "b"],
        episode=[0, 0, 1, 1, 0, 1],
        reward=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        success=[True, True, False, False, False, False],
        anchor=[
            "You see drawer 1.",
            "You see a mug.",
            "You see drawer 1.",
            "You see drawer 2.",
            "Nothing.",
            "Nothing.",
        ],
        action_valid=[True, True, True, False, True, True],
    )
