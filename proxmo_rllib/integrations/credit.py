"""Advantages for a program that has its own episodes: what was seen, earned and reached in, one number a token out.

```python
episodes = [PlayedEpisode("task 1", success=True, observations=["You see a mug."], rewards=[1.0]), ...]
advantages = token_advantages(episodes, response_mask, "proxmo", gamma=0.95)
```

Numpy only. The estimators are those of `proxmo_rllib.advantages`, and nothing is computed here but their places.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxmo_rllib.advantages import Estimator, TurnTable, estimate_advantages


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """An episode as an estimator needs it: no tokens, no prompt.

    Args:
        group: what it is compared within: episodes of one task from one initial state share it, in any order.
        success: the environment's flag.
        observations: what each turn answered, bare: without instructions, history or chat markup.
        rewards: of each turn, finite.
        valid: whether the environment understood each turn's action; None where it does not say.

    An episode without turns is one that broke. Its whole group is left out, as this project leaves it out.

    Raises:
        ValueError: there is not one reward, or one flag, for each observation.
    """

    group: Hashable
    success: bool
    observations: Sequence[str]
    rewards: Sequence[float]
    valid: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        lengths = {"observations": len(self.observations), "rewards": len(self.rewards)}
        if self.valid is not None:
            lengths["valid"] = len(self.valid)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"PlayedEpisode of group {self.group!r}: {lengths}; give each one entry a turn.")

    def __len__(self) -> int:
        return len(self.observations)


def turn_advantages(
    episodes: Sequence[PlayedEpisode], estimator: str | Estimator = "proxmo", **options: Any
) -> list[npt.NDArray[np.float64]]:
    """Advantage of every turn.

    Args:
        episodes: of whole groups.
        estimator: one of `proxmo_rllib.advantages.ESTIMATORS`, or one of your own.
        **options: of the estimator.

    Returns:
        For each episode float64 [turns]. Zeros where an episode of its group broke.

    Raises:
        ValueError: no episode, or what `estimate_advantages` refuses.
    """
    if not episodes:
        raise ValueError("turn_advantages: no episodes; give those of whole groups.")
    broken = {episode.group for episode in episodes if not len(episode)}
    rows = [
        (place, turn)
        for place, episode in enumerate(episodes)
        if episode.group not in broken
        for turn in range(len(episode))
    ]
    found = [np.zeros(len(episode)) for episode in episodes]
    if not rows:
        return found
    known = all(episodes[place].valid is not None for place, _ in rows)
    table = TurnTable(
        group=[episodes[place].group for place, _ in rows],
        episode=[place for place, _ in rows],
        reward=[episodes[place].rewards[turn] for place, turn in rows],
        success=[episodes[place].success for place, _ in rows],
        anchor=[episodes[place].observations[turn] for place, turn in rows],
        action_valid=[bool(episodes[place].valid[turn]) for place, turn in rows] if known else None,  # type: ignore[index]
    )
    total = estimate_advantages(table, estimator, **options).total
    for (place, turn), value in zip(rows, total.tolist(), strict=True):
        found[place][turn] = value
    return found


def token_advantages(
    episodes: Sequence[PlayedEpisode], mask: npt.ArrayLike, estimator: str | Estimator = "proxmo", **options: Any
) -> npt.NDArray[np.float32]:
    """Advantage of every token that the policy said.

    Args:
        episodes: of whole groups, in the order of the rows.
        mask: 1 for a token that the policy said, 0 for what the environment said and for padding, shape
            [episodes, tokens]. Each run of ones is one turn.
        estimator: as of `turn_advantages`.
        **options: of the estimator.

    Returns:
        float32 [episodes, tokens]: a turn's advantage on each of its tokens, 0 elsewhere.

    Raises:
        ValueError: a row has another number of runs than its episode has turns; what `turn_advantages` refuses.
    """
    said = np.asarray(mask) != 0
    if said.ndim != 2 or len(said) != len(episodes):
        raise ValueError(
            f"mask has shape {said.shape}; it is [episodes, tokens], and there are {len(episodes)} episodes."
        )
    by_turn = turn_advantages(episodes, estimator, **options)
    found = np.zeros(said.shape, dtype=np.float32)
    for row, values in enumerate(by_turn):
        runs = turn_spans(said[row])
        if len(values) and len(runs) != len(values):
            raise ValueError(
                f"Episode {row} (group {episodes[row].group!r}) has {len(values)} turns, and its mask has {len(runs)} "
                "runs of ones; each turn's tokens are one run, with what the environment said masked between them."
            )
        for (start, stop), value in zip(runs, values, strict=False):  # a broken episode may have said something
            found[row, start:stop] = value
    return found


def turn_spans(said: npt.ArrayLike) -> list[tuple[int, int]]:
    """[start, stop) of each run of ones in a mask of shape [tokens]."""
    edges = np.diff(np.asarray(said) != 0, prepend=False, append=False).nonzero()[0].tolist()
    return list(zip(edges[0::2], edges[1::2], strict=True))
