"""The learning rate by optimizer steps: what the optimizer has at each, and after a resumption."""

from __future__ import annotations

import pytest


def rates(tools, learner, groups, count):
    found = []
    for _ in range(count):
        tools.update(learner, groups)
        found.append(learner._optimizer_parameters and next(iter(learner._optimizer_parameters)).param_groups[0]["lr"])
    return found


def test_the_rate_follows_the_optimizer_steps_also_when_resumed(tools, config):
    config.training(lr=0.8, lr_schedule={"decay": "linear", "warmup_steps": 2, "total_steps": 6})
    groups = tools.groups(2, 3)
    learner = tools.build(config)
    whole = rates(tools, learner, groups, 6)
    assert whole == pytest.approx([0.4, 0.8, 0.8, 0.6, 0.4, 0.2])

    first = tools.build(config)
    rates(tools, first, groups, 3)
    second = tools.build(config)
    second.set_state(first.get_state())
    assert rates(tools, second, groups, 3) == pytest.approx(whole[3:])


def test_a_rate_cannot_have_two_schedules(config):
    config.training(lr=[[0, 1e-3], [100, 1e-4]], lr_schedule="constant")
    with pytest.raises(ValueError, match=r"lr_schedule='constant'.*is a schedule too"):
        config.validate()
