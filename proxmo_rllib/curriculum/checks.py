"""Whether a curriculum can be used, found out on two made-up groups before long work starts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from proxmo_rllib.curriculum.sampler import TaskSampler
from proxmo_rllib.types import Assignment, Episode, Group, Status, Turn

_TASKS = ("a", "b", "c")


def check_curriculum(config: Any) -> None:
    """Deals, judges and saves once.

    Args:
        config: a ProxMOConfig.

    Raises:
        ValueError: a part cannot be made as it is set, or returns what it may not; names the setting.
    """
    sampler = TaskSampler.of(config, _TASKS)
    for statuses in ((Status.SUCCESS, Status.FAILURE), (Status.FAILURE, Status.FAILURE)):
        assignment = sampler.next(len(statuses))
        if assignment.task not in _TASKS:
            raise ValueError(
                f"task_order={config.task_order!r}: {assignment.task!r} is none of the tasks it was given."
            )
        turns = assignment.max_turns
        if turns is not None and not (isinstance(turns, int) and 1 <= turns <= config.max_turns):
            raise ValueError(
                f"horizon={config.horizon!r}: it says {turns!r} turns, and may say None or 1 to max_turns="
                f"{config.max_turns}."
            )
        outcome = sampler.judge(assignment, _group(assignment, statuses))
        if not isinstance(outcome.contrast, bool):
            raise ValueError(
                f"dynamic_sampling={config.dynamic_sampling!r}: has_contrast returned {outcome.contrast!r}, and may "
                "return True or False."
            )
        sampler.ended(outcome)
    _check_state(sampler)


def _check_state(sampler: TaskSampler) -> None:
    for key, kept in sampler.get_state().items():
        try:
            same = json.loads(json.dumps(kept)) == kept
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: its state {kept!r} is no JSON: {error}") from error
        if not same:
            raise ValueError(
                f"{key}: its state {kept!r} comes back otherwise from JSON; keep lists, texts and numbers."
            )
    sampler.set_state(json.loads(json.dumps(sampler.get_state())))


def _group(assignment: Assignment, statuses: tuple[Status, ...]) -> Group:
    ids = np.zeros(2, np.int32)
    logprobs = np.full(2, -1.0, np.float32)
    episodes = []
    for index, status in enumerate(statuses):
        reward = float(status is Status.SUCCESS)
        turn = Turn(ids, False, ids, logprobs, 0, "You see a mug.", "take mug", "take mug", True, reward)
        name = f"{assignment.group_id}-{index}"
        episodes.append(Episode(name, assignment.group_id, assignment.task, "", assignment.seed, (turn,), status))
    return Group(assignment.group_id, assignment.task, tuple(episodes))
