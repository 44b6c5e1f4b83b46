"""What an estimator makes of groups of episodes: the expectation of its gradient, and how far one group is from it.

episodes, each with its probability ──► groups, drawn or all of them ──► TurnTable ──► advantages
──► one gradient a group, sum over turns of A grad log pi, over N ──► mean, noise
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from benchmarks.evidence.audit.exact import Episodes
from benchmarks.evidence.audit.methods import Method
from proxmo_rllib.advantages import TurnTable, estimate_advantages
from proxmo_rllib.advantages.table import FloatArray, IntArray

#: Groups in one table. An estimator that looks at the whole batch looks at these.
BATCH = 500


def gradients(episodes: Episodes, groups: IntArray, method: Method) -> FloatArray:
    """The gradient that a method makes of each group, shape [groups, parameters].

    Args:
        episodes: of the world.
        groups: which of them make each group, all of one task, shape [groups, N].
        method: makes one advantage a turn.
    """
    batches = np.split(groups, range(BATCH, len(groups), BATCH))
    return np.concatenate([_gradients(episodes, some, method) for some in batches])


def _gradients(episodes: Episodes, groups: IntArray, method: Method) -> FloatArray:
    number, size = groups.shape
    chosen = groups.ravel()
    length = episodes.length[chosen]
    first = np.repeat(episodes.start[chosen] - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    turn = first + np.arange(length.sum())  # the place of each row among the world's turns
    row_of = np.repeat(np.arange(number * size), length)
    table = TurnTable(
        group=row_of // size,
        episode=row_of,
        reward=episodes.reward[turn],
        success=episodes.success[episodes.episode_of[turn]].astype(bool),
        anchor=[episodes.anchor[place] for place in turn],
    )
    advantages = estimate_advantages(table, method.estimator, **method.options).total
    found = np.zeros((number, episodes.score.shape[1]))
    np.add.at(found, row_of // size, advantages[:, None] * episodes.score[turn])
    return found / size  # type: ignore[no-any-return]


def draw(episodes: Episodes, number: int, size: int, rng: np.random.Generator) -> IntArray:
    """Groups as a rollout has them, of tasks drawn at random, shape [number, size]."""
    groups = np.empty((number, size), dtype=np.int64)
    task_of = rng.integers(episodes.tasks, size=number)
    for task in range(episodes.tasks):
        rows, known = np.flatnonzero(task_of == task), np.flatnonzero(episodes.task_of == task)
        groups[rows] = rng.choice(known, size=(len(rows), size), p=episodes.probability[known])
    return groups


def every_group(episodes: Episodes, size: int) -> tuple[IntArray, FloatArray]:
    """All groups of so many episodes, shape [groups, size], and the probability of each, shape [groups]."""
    groups = [
        group
        for task in range(episodes.tasks)
        for group in itertools.product(np.flatnonzero(episodes.task_of == task), repeat=size)
    ]
    return np.array(groups), episodes.probability[np.array(groups)].prod(axis=1) / episodes.tasks


@dataclass(frozen=True)
class Audit:
    """How a method's gradient of one group stands to the true one.

    Attributes:
        angle: degrees between its expectation and the true gradient: what no number of groups mends.
        length: of its expectation along the true gradient, in lengths of that one.
        noise: standard deviation of one group across the true gradient, in lengths of its expectation along it.
    """

    angle: float
    length: float
    noise: float

    def episodes_to(self, degrees: float, size: int) -> float:
        """Episodes in groups of `size` until the mean gradient is within an angle of the true one; infinity if never.

        Within it by the root of the mean square: (bias² + noise² / groups) across over 1 along is tan².
        """
        room = np.tan(np.radians(degrees)) ** 2 - np.tan(np.radians(self.angle)) ** 2
        if self.length <= 0 or self.angle >= degrees or room <= 0:
            return np.inf
        return float(size * max(1.0, self.noise**2 / room))


def audit_of(found: FloatArray, true: FloatArray) -> Audit:
    """Of gradients of many groups, one in each row. The angle is without what the finite number of rows adds to it.

    Args:
        found: shape [groups, parameters].
        true: shape [parameters].
    """
    along, across, noise = _parts(found.mean(axis=0), found, true)
    bias = np.sqrt(max(0.0, across - noise**2 / len(found)))
    return Audit(
        float(np.degrees(np.arctan2(bias, along))),
        float(along / np.linalg.norm(true)),
        float(noise / abs(along)) if along else np.inf,
    )


def _parts(mean: FloatArray, found: FloatArray, true: FloatArray) -> tuple[float, float, float]:
    """Of the mean: its length along the true gradient, its squared length across; and one row's deviation across."""
    unit = true / np.linalg.norm(true)
    along = float(mean @ unit)
    across = mean - along * unit
    deviations = found - mean
    sideways = deviations - np.outer(deviations @ unit, unit)
    return along, float(across @ across), float(np.sqrt((sideways**2).sum(axis=1).mean()))


def redrawn(found: FloatArray, true: FloatArray, rng: np.random.Generator, repeats: int = 200) -> list[Audit]:
    """Audits of as many groups drawn anew out of the same; between their percentiles lies the bootstrap's interval."""
    return [audit_of(found[rng.integers(len(found), size=len(found))], true) for _ in range(repeats)]
