"""Which task each group plays: no repetition within an epoch, the same on every machine, and resumable."""

from __future__ import annotations

import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.curriculum import TaskSampler

TASKS = [f"task-{index}" for index in range(7)]


def sampler_of(seed: int) -> TaskSampler:
    """Without a curriculum."""
    return TaskSampler.of(ProxMOConfig().debugging(seed=seed), TASKS)


def test_every_task_comes_once_in_an_epoch():
    sampler = sampler_of(0)
    dealt = [assignment.task for _ in range(7) for assignment in sampler.deal(3, 2)]
    epochs = [dealt[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == TASKS for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_resumed_sampler_goes_on_where_it_stopped():
    whole, first = sampler_of(1), sampler_of(1)
    expected = whole.deal(30, 2)
    begun = first.deal(11, 2)
    resumed = sampler_of(1)
    assert first.get_state() == {"position": 11}, "what it was before there were curricula"
    resumed.set_state(first.get_state())
    assert begun + resumed.deal(19, 2) == expected


def test_the_order_is_the_same_on_every_machine():
    """Not Python's hash, which differs between processes, nor NumPy's streams, which may change with its version."""
    dealt = sampler_of(3).deal(4, 8)
    assert [(a.group_id, a.task, a.seed, a.size) for a in dealt] == [
        ("3-0", "task-6", 1134606309, 8),
        ("3-1", "task-1", 902734856, 8),
        ("3-2", "task-2", 1970911267, 8),
        ("3-3", "task-3", 495181675, 8),
    ]


def test_groups_are_never_confused():
    sampler = sampler_of(0)
    dealt = sampler.deal(100, 2)
    assert len({assignment.group_id for assignment in dealt}) == 100
    assert len({assignment.seed for assignment in dealt}) == 100
    assert sampler_of(1).deal(100, 2) != dealt


def test_a_split_without_tasks_is_refused():
    with pytest.raises(ValueError, match="no task"):
        TaskSampler.of(ProxMOConfig(), [])
