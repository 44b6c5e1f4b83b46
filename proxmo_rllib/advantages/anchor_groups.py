"""Hard grouping of turns by their anchors, and the mean of such a group as baseline (GiGPO, arXiv 2505.10978)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

from proxmo_rllib.advantages.table import FloatArray, IntArray, TurnTable


@dataclass(frozen=True, slots=True, eq=False)
class HardComparison:
    """Each turn against the mean return of the turns in its anchor group, itself among them."""

    anchor_group: IntArray  # [turns]
    baseline: FloatArray  # [turns] mean return of the anchor group, unit of reward
    spread: FloatArray  # [turns] standard deviation (Bessel's correction) of it, 0 for a group of one
    neighbourhood: FloatArray  # [turns] size of the anchor group

    @classmethod
    def of(cls, table: TurnTable, returns: FloatArray, similarity_threshold: float | None) -> HardComparison:
        """Group the turns and average their returns, shape [turns], unit of reward."""
        group = anchor_groups(table, similarity_threshold)
        size = np.bincount(group).astype(np.float64)
        # Returns relative to one of the group: equal returns give exactly the mean, and no spread.
        origin = np.empty(len(size))
        origin[group] = returns
        relative = returns - origin[group]
        mean = np.bincount(group, weights=relative) / size
        squares = np.bincount(group, weights=(relative - mean[group]) ** 2)
        spread = np.sqrt(squares / np.maximum(size - 1.0, 1.0))
        return cls(group, (mean + origin)[group], spread[group], size[group])

    @property
    def self_weight(self) -> FloatArray:
        """Weight of the turn in its own baseline, shape [turns]."""
        return 1.0 / self.neighbourhood

    def neighbours(self, turn: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Rows of the anchor group of `turn`, their equal weights, and 1 as their similarity."""
        rows = np.flatnonzero(self.anchor_group == self.anchor_group[turn])
        return rows, np.full(len(rows), 1.0 / len(rows)), np.ones(len(rows))


def anchor_groups(table: TurnTable, similarity_threshold: float | None = None) -> IntArray:
    """Number of the anchor group of each turn, shape [turns]; never across groups of episodes.

    Args:
        table: the turns.
        similarity_threshold: None: an anchor group has one and the same anchor. Otherwise an anchor joins the first
            anchor group whose representative is at least this similar by `difflib.SequenceMatcher.ratio`, as in the
            official code; anchors are taken in alphabetical order, so that the order of the rows does not matter.
    """
    if similarity_threshold is None:
        return table.anchor_of
    cluster_of = np.empty(len(table.distinct_anchors), dtype=np.int64)
    count = 0
    for start, stop in pairwise(table.anchor_starts.tolist()):
        clusters = _clusters(table.distinct_anchors[start:stop], similarity_threshold)
        cluster_of[start:stop] = count + clusters
        count += int(clusters.max()) + 1
    return cluster_of[table.anchor_of]


def _clusters(anchors: Sequence[str], threshold: float) -> IntArray:
    """Greedy clusters of distinct texts around the first text of each, shape [anchors]."""
    letters = {letter: index for index, letter in enumerate(sorted(set("".join(anchors))))}
    histogram = np.zeros((len(anchors), max(len(letters), 1)))
    for row, anchor in enumerate(anchors):
        for letter, number in Counter(anchor).items():
            histogram[row, letters[letter]] = number
    length = histogram.sum(axis=1)
    cluster = np.empty(len(anchors), dtype=np.int64)
    leaders: list[int] = []
    matcher = SequenceMatcher()
    for row in sorted(range(len(anchors)), key=anchors.__getitem__):
        # The letters that two texts have in common bound their ratio, and cost far less to count.
        common = np.minimum(histogram[leaders], histogram[row]).sum(axis=1)
        bound = 2.0 * common / np.maximum(length[leaders] + length[row], 1.0)
        matcher.set_seq2(anchors[row])
        for place in np.flatnonzero(bound >= threshold - 1e-12).tolist():
            matcher.set_seq1(anchors[leaders[place]])
            if matcher.ratio() >= threshold:
                cluster[row] = place
                break
        else:
            cluster[row] = len(leaders)
            leaders.append(row)
    return cluster
