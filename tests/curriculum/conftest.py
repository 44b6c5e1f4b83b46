"""Groups by what their episodes came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.types import Assignment, Episode, Group, Status, Turn


def group_of(
    assignment: Assignment,
    successes: Sequence[bool],
    *,
    lengths: Sequence[int] | None = None,
    penalty: float = 0.0,
    anchors: Callable[[int, int], str] = lambda index, time: f"You see thing {time}.",
) -> Group:
    """A reward of 1 for the last turn of a success; the first turn of the last episode costs `penalty`."""
    ids = np.zeros(2, np.int32)
    episodes = []
    for index, success in enumerate(successes):
        length = lengths[index] if lengths else 2
        turns = []
        for time in range(length):
            reward = float(success and time == length - 1)
            reward -= penalty if time == 0 and index == len(successes) - 1 else 0.0
            logprobs = np.full(2, -1.0, np.float32)
            turns.append(Turn(ids, time > 0, ids, logprobs, 0, anchors(index, time), "go", "go", True, reward))
        status = Status.SUCCESS if success else Status.FAILURE
        name = f"{assignment.group_id}-{index}"
        episodes.append(Episode(name, assignment.group_id, assignment.task, "", assignment.seed, tuple(turns), status))
    return Group(assignment.group_id, assignment.task, tuple(episodes))


@pytest.fixture
def make_group() -> Callable[..., Group]:
    return group_of


@pytest.fixture
def config() -> ProxMOConfig:
    config: Any = ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")
    return config.training(num_groups=4, group_size=4)  # type: ignore[no-any-return]
