"""What an estimator returns: advantages with the parts they are made of, able to explain themselves."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from proxmo_rllib.advantages.table import FloatArray, IntArray, TurnTable

if TYPE_CHECKING:
    from proxmo_rllib.advantages.diagnostics import Measured


class StepComparison(Protocol):
    """Which turns stood behind each turn's step advantage; what the diagnostics and the explanation read."""

    @property
    def baseline(self) -> FloatArray:
        """Shape [turns], unit of reward."""
        ...

    @property
    def self_weight(self) -> FloatArray:
        """Weight of the turn in its own baseline, shape [turns]."""
        ...

    @property
    def neighbourhood(self) -> FloatArray:
        """Effective number of turns behind the baseline, shape [turns]."""
        ...

    def neighbours(self, turn: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Rows of the turns behind the baseline of `turn`, their weights and their similarities to it."""
        ...


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One turn behind another turn's baseline."""

    turn: int  # row in the table
    episode: Hashable
    time_step: int
    anchor: str
    similarity: float
    weight: float
    return_to_go: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the advantage of one turn comes from."""

    turn: int  # row in the table
    anchor: str
    total: float
    episode: float  # episode advantage, modulation included
    step: float  # step advantage, before `step_weight`
    modulation: float
    success_rate: float  # of the turn's group
    return_to_go: float
    baseline: float
    neighbourhood: float  # effective number of turns behind the baseline
    neighbours: tuple[Neighbour, ...]  # by weight, largest first

    def __str__(self) -> str:
        lines = [
            f"turn {self.turn}: {self.anchor!r}",
            f"  total {self.total:+.4f} = episode {self.episode:+.4f} (group success rate {self.success_rate:.2f}, "
            f"modulation {self.modulation:.4f}) with step {self.step:+.4f}",
            f"  step = return {self.return_to_go:.4f} - baseline {self.baseline:.4f} "
            f"({self.neighbourhood:.1f} turns in effect)",
        ]
        lines += [
            f"  weight {n.weight:.4f}  similarity {n.similarity:.3f}  return {n.return_to_go:.4f}  "
            f"turn {n.turn} (episode {n.episode!r}, step {n.time_step}): {n.anchor!r}"
            for n in self.neighbours
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class Advantages:
    """Advantages of every turn of a table. Arrays are float64 of shape [turns], in the order of the table's rows."""

    total: FloatArray  # what the loss multiplies the turn's response tokens with
    episode: FloatArray  # the part that all turns of an episode share, modulation included
    step: FloatArray  # the part of the turn itself, before its weight in the total
    returns: FloatArray  # return to go, unit of reward
    modulation: FloatArray  # factor within `episode`; 1 where the estimator has none
    success_rate: dict[Hashable, float]  # by group id: share of its episodes that succeeded
    table: TurnTable = field(repr=False)
    comparison: StepComparison | None = field(default=None, repr=False)  # None: no step advantage

    @classmethod
    def build(
        cls,
        table: TurnTable,
        *,
        episode: FloatArray,
        returns: FloatArray,
        modulation: FloatArray | None = None,
        step: FloatArray | None = None,
        step_weight: float = 1.0,
        comparison: StepComparison | None = None,
    ) -> Advantages:
        """Put the parts together: `total = episode + step_weight * step`.

        Args:
            table: the turns.
            episode: advantage of each episode, shape [episodes]; broadcast to its turns.
            returns: return to go, shape [turns].
            modulation: factor already within `episode`, shape [episodes].
            step: advantage of each turn, shape [turns]; None for an estimator without.
            step_weight: omega.
            comparison: the turns behind `step`.
        """
        by_turn = np.asarray(episode, dtype=np.float64)[table.episode_of]
        step = np.zeros(len(table)) if step is None else step
        rates = table.success_rate()
        return cls(
            total=by_turn + step_weight * step,
            episode=by_turn,
            step=step,
            returns=returns,
            modulation=np.ones(len(table)) if modulation is None else modulation[table.episode_of],
            success_rate=dict(zip(table.group_ids, rates.tolist(), strict=True)),
            table=table,
            comparison=comparison,
        )

    def __len__(self) -> int:
        return len(self.total)

    def explain(self, turn: int, k: int = 5) -> Explanation:
        """The parts of one turn's advantage, and the `k` turns that weigh most in its baseline.

        Raises:
            IndexError: no such turn.
        """
        if not 0 <= turn < len(self):
            raise IndexError(f"turn={turn}: the table has the turns 0 to {len(self) - 1}; give the row of one of them.")
        table = self.table
        neighbours: list[Neighbour] = []
        baseline, neighbourhood = 0.0, 0.0
        if self.comparison is not None:
            baseline = float(self.comparison.baseline[turn])
            neighbourhood = float(self.comparison.neighbourhood[turn])
            rows, weights, similarity = self.comparison.neighbours(turn)
            for place in np.lexsort((rows, -weights))[:k].tolist():
                row = int(rows[place])
                neighbours.append(
                    Neighbour(
                        turn=row,
                        episode=table.episode[row],
                        time_step=int(table.time_step[row]),
                        anchor=table.anchor[row],
                        similarity=float(similarity[place]),
                        weight=float(weights[place]),
                        return_to_go=float(self.returns[row]),
                    )
                )
        return Explanation(
            turn=turn,
            anchor=table.anchor[turn],
            total=float(self.total[turn]),
            episode=float(self.episode[turn]),
            step=float(self.step[turn]),
            modulation=float(self.modulation[turn]),
            success_rate=self.success_rate[table.group_ids[table.group_of[turn]]],
            return_to_go=float(self.returns[turn]),
            baseline=baseline,
            neighbourhood=neighbourhood,
            neighbours=tuple(neighbours),
        )

    def diagnostics(self) -> dict[str, float]:
        """Scalars to log every iteration; see `diagnostics.py` for each one's meaning."""
        from proxmo_rllib.advantages.diagnostics import diagnostics

        return diagnostics(self)

    def measure(self) -> dict[str, Measured]:
        """The values behind these scalars: what several shards of a batch put together, where scalars would mislead."""
        from proxmo_rllib.advantages.diagnostics import measure

        return measure(self)
