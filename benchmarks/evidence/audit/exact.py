"""Every episode of a world under a policy, its probability, and the true policy gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from benchmarks.evidence.audit.worlds import State, World
from proxmo_rllib.advantages.table import FloatArray, IntArray


@dataclass(frozen=True)
class Episodes:
    """All episodes of a world's tasks under a policy.

    Attributes:
        task_of: the task of each, shape [episodes].
        probability: of each in its task, shape [episodes].
        length: turns of each, shape [episodes].
        success: of each, shape [episodes], 0 or 1.
        anchor: the texts that were answered, of all turns in order, shape [turns].
        reward: of all turns in order, shape [turns].
        score: gradient of the log-probability of each turn's action, shape [turns, parameters].
    """

    task_of: IntArray
    probability: FloatArray
    length: IntArray
    success: FloatArray
    anchor: tuple[str, ...]
    reward: FloatArray
    score: FloatArray

    @property
    def tasks(self) -> int:
        return int(self.task_of.max()) + 1

    @cached_property
    def start(self) -> IntArray:
        """The first turn of each episode, shape [episodes]."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int64)

    @cached_property
    def episode_of(self) -> IntArray:
        """The episode of each turn, shape [turns]."""
        return np.repeat(np.arange(len(self.length)), self.length)

    @cached_property
    def returns(self) -> FloatArray:
        """Undiscounted return of each episode, shape [episodes]."""
        return np.bincount(self.episode_of, self.reward).astype(np.float64)

    @property
    def success_rates(self) -> FloatArray:
        """Of each task, shape [tasks]."""
        return np.bincount(self.task_of, self.probability * self.success).astype(np.float64)

    @property
    def gradients(self) -> FloatArray:
        """Of each task's expected undiscounted return: the sum of p R grad log p. Shape [tasks, parameters]."""
        found = np.zeros((self.tasks, self.score.shape[1]))
        weights = (self.probability * self.returns)[self.episode_of]
        np.add.at(found, self.task_of[self.episode_of], weights[:, None] * self.score)
        return found

    @property
    def gradient(self) -> FloatArray:
        """Of the expected undiscounted return of a task drawn at random, shape [parameters]."""
        return self.gradients.mean(axis=0)  # type: ignore[no-any-return]


def probabilities(world: World, parameters: FloatArray, state: State) -> FloatArray:
    """Of a state's actions under the policy, shape [actions]."""
    logits = np.array([parameters[world.parameters[world.text(state), action]] for action in world.actions(state)])
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()  # type: ignore[no-any-return]


class _Walked(NamedTuple):
    """An episode that was walked through."""

    task: int
    probability: float
    turns: list[tuple[str, float, FloatArray]]  # text, reward, score
    success: bool


def episodes_of(world: World, parameters: FloatArray) -> Episodes:
    """Every episode of every task under a policy."""
    walked = [one for task, start in enumerate(world.starts) for one in _walk(world, parameters, task, start, 1.0, [])]
    turns = [turn for one in walked for turn in one.turns]
    return Episodes(
        np.array([one.task for one in walked]),
        np.array([one.probability for one in walked]),
        np.array([len(one.turns) for one in walked]),
        np.array([float(one.success) for one in walked]),
        tuple(text for text, _, _ in turns),
        np.array([reward for _, reward, _ in turns]),
        np.array([score for _, _, score in turns]),
    )


def _walk(
    world: World,
    parameters: FloatArray,
    task: int,
    state: State,
    probability: float,
    turns: list[tuple[str, float, FloatArray]],
) -> Iterator[_Walked]:
    """The episodes that go on from a state."""
    text, actions = world.text(state), world.actions(state)
    places = [world.parameters[text, action] for action in actions]
    chances = probabilities(world, parameters, state)
    for action, place, chance in zip(actions, places, chances, strict=True):
        score = np.zeros(len(parameters))
        score[places] = -chances
        score[place] += 1.0
        step = world.step(state, action)
        path = [*turns, (text, step.reward, score)]
        if step.state is None or len(path) == world.turns:
            yield _Walked(task, probability * chance, path, step.success)
        else:
            yield from _walk(world, parameters, task, step.state, probability * chance, path)


def with_success_rate(world: World, rate: float) -> FloatArray:
    """Parameters of a policy that succeeds so often, over the tasks; its skill is the same everywhere.

    Args:
        world: where.
        rate: between 0 and 1.
    """

    def missing(skill: float) -> float:
        return float(episodes_of(world, world.expert(skill)).success_rates.mean()) - rate

    return world.expert(brentq(missing, -20.0, 20.0, xtol=1e-9))
