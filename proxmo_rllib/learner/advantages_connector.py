"""Connector: episodes of whole groups in, one advantage a turn out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from proxmo_rllib.advantages import Estimator, TurnTable, estimate_advantages
from proxmo_rllib.advantages.diagnostics import Measured
from proxmo_rllib.exact_stats import HISTOGRAMS, sample_of
from proxmo_rllib.types import Episode

#: Where the next connector finds them in `shared_data`: {episode id: float64 [turns]}.
TURN_ADVANTAGES = "turn_advantages"


def turn_table(episodes: Sequence[Episode]) -> TurnTable:
    """One row a turn, the rows of an episode in time order."""
    turns = [turn for episode in episodes for turn in episode.turns]
    lengths = [len(episode) for episode in episodes]
    return TurnTable(
        group=[episode.group_id for episode in episodes for _ in episode.turns],
        episode=[episode.episode_id for episode in episodes for _ in episode.turns],
        reward=[turn.reward for turn in turns],
        success=np.repeat(np.array([episode.success for episode in episodes], dtype=bool), lengths),
        anchor=[turn.anchor for turn in turns],
        action_valid=[turn.action_valid for turn in turns],
    )


class ProxMOAdvantages(ConnectorV2):
    """Estimates the advantages and logs the estimator's diagnostics.

    Args:
        estimator: the advantage estimator.
        settings: its options.
        group_size: episodes of a whole group; a group of another size is an error.
        histograms: whether to log samples of the advantages too.
    """

    def __init__(
        self,
        estimator: Estimator,
        settings: Mapping[str, Any],
        group_size: int,
        *,
        histograms: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._estimator = estimator
        self._settings = dict(settings)
        self._group_size = group_size
        self._histograms = histograms

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: Sequence[Episode],
        explore: bool | None = None,
        shared_data: dict[str, Any] | None = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Puts the advantages into `shared_data`; the batch passes unchanged."""
        _check_groups(episodes, self._group_size)
        estimate = estimate_advantages(turn_table(episodes), self._estimator, **self._settings)
        total = np.asarray(estimate.total)
        by_episode: dict[str, np.ndarray] = {}
        row = 0
        for episode in episodes:
            by_episode[episode.episode_id] = total[row : row + len(episode)]
            row += len(episode)
        assert shared_data is not None, "the learner's pipeline hands one dictionary to all its connectors"
        shared_data[TURN_ADVANTAGES] = by_episode
        if metrics is not None:
            for name, measured in estimate.measure().items():
                _log(metrics, (DEFAULT_MODULE_ID, "advantages", name), measured)
            if self._histograms:
                for name, values in (("total", total), ("episode", estimate.episode), ("step", estimate.step)):
                    key = (DEFAULT_MODULE_ID, HISTOGRAMS, f"{name}_advantage")
                    metrics.log_value(key, sample_of(values), reduce="sample")
        return batch


def _log(metrics: Any, key: tuple[str, ...], measured: Measured) -> None:
    """So that the scalar is that of all learners' turns together, each of which has a share of the groups."""
    values = measured.values.astype(np.float64)
    match measured.reduction:
        case "mean":
            metrics.log_value(key, (values.sum(), len(values)), reduce="ratio")
        case "std":
            metrics.log_value(key, values, reduce="std")
        case reduction:
            metrics.log_value(key, measured.scalar, reduce=reduction)


def _check_groups(episodes: Sequence[Episode], group_size: int) -> None:
    sizes = Counter(episode.group_id for episode in episodes)
    torn = {group: size for group, size in sizes.items() if size != group_size}
    if torn:
        raise ValueError(f"Groups must be whole, with {group_size} episodes each; these are not: {torn}.")
    tasks: dict[str, str] = {}
    for episode in episodes:
        if tasks.setdefault(episode.group_id, episode.task) != episode.task:
            raise ValueError(
                f"Group {episode.group_id!r} mixes the tasks {tasks[episode.group_id]!r} and {episode.task!r}; its "
                "episodes cannot be compared."
            )
