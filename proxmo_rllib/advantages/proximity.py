"""Proximity-based soft aggregation (PSA of ProxMO, arXiv 2602.19225): a baseline out of the turns that saw alike.

`w_tj = softmax_j(s_tj / tau)` over the turns j of the group, `B_t = sum_j w_tj G_j`, `A_S(t) = G_t - B_t`.

Cost: one similarity matrix a group over its *distinct* anchors, in blocks of rows; nothing grows with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from proxmo_rllib.advantages.group_kernels import IdfScope, kernels_by_group
from proxmo_rllib.advantages.similarity import Kernel, Similarity, is_bounded
from proxmo_rllib.advantages.table import FloatArray, IntArray, TurnTable
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN

TimePooling = Literal["all", "step"] | int

BLOCK_ENTRIES = 1 << 19  # of one block of weights at most: 4 MiB
STRIP = 128  # rows of a block where half of the weights is computed: fewer save more of them, and cost more calls


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftAggregation:
    """Which turns a turn is compared with, and how their weights fall with the distance of their anchors."""

    temperature: float = 0.1  # tau; towards 0 only identical anchors count, towards infinity all turns alike
    similarity: Similarity = "tfidf"
    include_self: bool = True  # the paper's sum runs over every turn of the group, the turn itself among them
    time_pooling: TimePooling = "all"  # "step": turns of the same time step; k: within k time steps
    idf_scope: IdfScope = "group"
    token_pattern: str = TOKEN_PATTERN
    max_features: int | None = None
    blank_matches_itself: bool = True  # False: a blank anchor has similarity 0 to itself, as in the official code


class StepBaseline(NamedTuple):
    """The soft baseline of every turn, each of shape [turns]."""

    baseline: FloatArray  # unit of reward
    self_weight: FloatArray  # weight of the turn in its own baseline, 0 to 1
    neighbourhood: FloatArray  # effective number of turns behind the baseline, 1 / sum(w^2); 0 if there was none


class Neighbours(NamedTuple):
    """The turns behind one turn's baseline, each of shape [neighbours]."""

    rows: IntArray
    weights: FloatArray  # sum to 1
    similarity: FloatArray


class _Group(NamedTuple):
    rows: IntArray  # [n] turns of the group
    anchor_of: IntArray  # [n] index among the distinct anchors
    kernel: Kernel


def soft_baseline(table: TurnTable, returns: FloatArray, options: SoftAggregation) -> StepBaseline:
    """Baseline of each turn from the returns of the group's turns, weighted by the likeness of their anchors.

    A turn without any turn to compare with (alone in its pool, itself left out) gets its own return as baseline, so
    that its step advantage is zero.

    Args:
        table: the turns.
        returns: return to go of each turn, shape [turns].
        options: temperature, similarity and the switches.
    """
    # Returns relative to one of the group: a constant shift cancels before it can cost digits.
    origin = np.empty(table.num_groups)
    origin[table.group_of[::-1]] = returns[::-1]
    values = returns - origin[table.group_of]
    if options.time_pooling == "all":
        sums = _sums_over_groups(table, values, options)
    else:
        sums = _sums_over_pools(table, values, options)
    weight, total, square, itself = sums.T
    if not options.include_self:
        weight, total, square = weight - itself, total - itself * values, square - itself**2
        itself = np.zeros(len(table))
    alone = weight <= 0.0
    weight = np.where(alone, 1.0, weight)
    return StepBaseline(
        baseline=np.where(alone, values, total / weight) + origin[table.group_of],
        self_weight=itself / weight,
        neighbourhood=np.where(alone, 0.0, weight**2 / np.where(alone, 1.0, square)),
    )


def soft_neighbours(
    table: TurnTable, turn: int, options: SoftAggregation, known: dict[int, _Group] | None = None
) -> Neighbours:
    """The turns that `soft_baseline` averaged for one turn, with their weights.

    Args:
        table: the turns.
        turn: row of the turn.
        options: as of `soft_baseline`.
        known: groups whose similarities were computed for other turns already, by their index; grows.
    """
    known = {} if known is None else known
    code = int(table.group_of[turn])
    if code not in known:
        known[code] = _one_group(table, code, options)
    group = known[code]
    local = int(np.flatnonzero(group.rows == turn)[0])
    pools = _pools(table.time_step[group.rows], options.time_pooling)
    pool = next(pool for members, pool in pools if local in members)
    anchor = group.anchor_of[[local]]
    distinct, columns = np.unique(group.anchor_of[pool], return_inverse=True)
    similarity = group.kernel.block(anchor, distinct)[0, columns]
    others = np.ones(len(pool), dtype=bool) if options.include_self else pool != local
    pool, similarity = pool[others], similarity[others]
    if not len(pool):
        return Neighbours(group.rows[pool], similarity, similarity)
    weights = np.exp((similarity - similarity.max()) / options.temperature)
    return Neighbours(group.rows[pool], weights / weights.sum(), similarity)


@dataclass(frozen=True, slots=True, eq=False)
class SoftComparison:
    """The soft baselines of a table, able to name the turns behind each."""

    baseline: FloatArray  # [turns] unit of reward
    self_weight: FloatArray  # [turns] weight of the turn in its own baseline
    neighbourhood: FloatArray  # [turns] effective number of turns behind the baseline
    table: TurnTable
    options: SoftAggregation
    known: dict[int, _Group] = field(default_factory=dict, repr=False)  # grows as turns are explained

    @classmethod
    def of(cls, table: TurnTable, returns: FloatArray, options: SoftAggregation) -> SoftComparison:
        return cls(*soft_baseline(table, returns, options), table, options)

    def neighbours(self, turn: int) -> Neighbours:
        return soft_neighbours(self.table, turn, self.options, self.known)


def _sums_over_groups(table: TurnTable, values: FloatArray, options: SoftAggregation) -> FloatArray:
    """`_sums` of each turn over all turns of its group, shape [turns, 4]."""
    columns = _columns(table.anchor_of, values)
    sums = np.empty((len(columns), 4))
    kernels = kernels_by_group(table, 0, table.num_groups, options)
    for kernel, (start, stop) in zip(kernels, pairwise(table.anchor_starts.tolist()), strict=True):
        part, everything = slice(start, stop), np.arange(stop - start)
        if options.include_self and is_bounded(kernel):
            sums[part] = _sums_by_symmetry(kernel, columns[part], options.temperature)
        else:
            sums[part] = _sums(kernel, everything, everything, columns[part], options)
    return sums[table.anchor_of]


def _sums_over_pools(table: TurnTable, values: FloatArray, options: SoftAggregation) -> FloatArray:
    """`_sums` of each turn over the turns of its group that are near in time, shape [turns, 4]."""
    sums = np.empty((len(table), 4))
    for group in _groups(table, options):
        for members, pool in _pools(table.time_step[group.rows], options.time_pooling):
            distinct, column_of = np.unique(group.anchor_of[pool], return_inverse=True)
            asking, asker_of = np.unique(group.anchor_of[members], return_inverse=True)
            columns = _columns(column_of, values[group.rows[pool]])
            sums[group.rows[members]] = _sums(group.kernel, asking, distinct, columns, options)[asker_of]
    return sums


def _columns(anchor_of: IntArray, values: FloatArray) -> FloatArray:
    """Of each anchor the number of turns and the sum of their values, shape [anchors, 2].

    Turns with the same anchor have the same weight, so that sums run over distinct anchors.
    """
    return np.stack([np.bincount(anchor_of).astype(np.float64), np.bincount(anchor_of, weights=values)], axis=1)


def _sums(
    kernel: Kernel, asking: IntArray, distinct: IntArray, columns: FloatArray, options: SoftAggregation
) -> FloatArray:
    """What the softmax of each anchor in `asking` over the anchors `distinct` is made of.

    Args:
        kernel: similarities.
        asking: anchors, ascending, all of them in `distinct`.
        distinct: anchors, ascending.
        columns: of each of `distinct`, how many turns have it and the sum of their values, shape [distinct, 2].
        options: temperature, and whether the turn itself counts.

    Returns:
        Of each asking anchor the sums of the weights, of the weighted values and of the squared weights, and the weight
        of one turn with the very anchor, shape [asking, 4]; all up to a factor of the row.
    """
    result = np.empty((len(asking), 4))
    counts = columns[:, 0]
    own = np.searchsorted(distinct, asking)
    step = max(1, BLOCK_ENTRIES // len(distinct))
    for start in range(0, len(asking), step):
        part = slice(start, start + step)
        block = kernel.block(asking[part], distinct)
        place = (np.arange(len(block)), own[part])
        if not options.include_self:
            block[place] = np.where(counts[own[part]] == 1.0, -np.inf, block[place])
        highest = block.max(axis=1, keepdims=True)
        block -= np.where(np.isfinite(highest), highest, 0.0)
        block /= options.temperature
        np.exp(block, out=block)
        result[part, :2] = block @ columns
        result[part, 3] = block[place]
        result[part, 2] = np.square(block, out=block) @ counts
    return result


def _sums_by_symmetry(kernel: Kernel, columns: FloatArray, temperature: float) -> FloatArray:
    """`_sums` of all anchors over all anchors by half of the work: weights are symmetric, and none is above its own."""
    size = len(columns)
    counts, everything = columns[:, 0], np.arange(size)
    result = np.zeros((size, 4))
    result[:, 3] = 1.0
    step = max(1, min(STRIP, BLOCK_ENTRIES // size))
    for start in range(0, size, step):
        stop = min(start + step, size)
        block = kernel.block(everything[start:stop], everything[start:])
        block -= 1.0
        block *= 1.0 / temperature
        np.exp(block, out=block)
        below = block[:, stop - start :].T  # the same weights as seen by the anchors that follow
        result[start:stop, :2] += block @ columns[start:]
        result[stop:, :2] += below @ columns[start:stop]
        np.square(block, out=block)
        result[start:stop, 2] += block @ counts[start:]
        result[stop:, 2] += below @ counts[start:stop]
    return result


def _pools(time_step: IntArray, pooling: TimePooling) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs (turns, turns that they are compared with), indices into the group."""
    everything = np.arange(len(time_step))
    if pooling == "all":
        yield everything, everything
        return
    window = 0 if pooling == "step" else int(pooling)
    order = np.argsort(time_step, kind="stable")
    sorted_steps = time_step[order]
    for step in np.unique(sorted_steps):
        low, start, stop, high = np.searchsorted(sorted_steps, [step - window, step, step + 1, step + window + 1])
        yield order[start:stop], order[low:high]


def _groups(table: TurnTable, options: SoftAggregation) -> Iterator[_Group]:
    """Every group of the table, in the order of `group_ids`."""
    kernels = kernels_by_group(table, 0, table.num_groups, options)
    for code, (rows, kernel) in enumerate(zip(table.rows_by_group(), kernels, strict=True)):
        yield _Group(rows, table.anchor_of[rows] - table.anchor_starts[code], kernel)


def _one_group(table: TurnTable, code: int, options: SoftAggregation) -> _Group:
    rows = np.flatnonzero(table.group_of == code)
    kernel = next(kernels_by_group(table, code, code + 1, options))
    return _Group(rows, table.anchor_of[rows] - table.anchor_starts[code], kernel)
