"""The imitation loss in the same Learner: likelihood of what a script did, and of what the environment answered."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.annotations import override

from proxmo_rllib.learner import columns
from proxmo_rllib.learner.learner import ProxMOLearner
from proxmo_rllib.learner.losses import PolicyLoss, TokenLoss, imitation
from proxmo_rllib.learner.normalization import Normalization
from proxmo_rllib.learner.token_batches import pad_sequences
from proxmo_rllib.types import Episode


class DemonstrationBatches(ConnectorV2):
    """Lays demonstrations out as token sequences, every token with its weight.

    Args:
        observation_weight: weight of a context token beside 1 of a response token. To predict what the environment
            says teaches a small model to copy names, long before it can use them.
        observation_share: share of the context tokens that have it, drawn at random.
        learn_empty_thoughts: whether a thought without words is copied.
        device: where the batch goes.
    """

    def __init__(
        self,
        observation_weight: float,
        observation_share: float = 1.0,
        learn_empty_thoughts: bool = False,
        device: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._observation_weight = observation_weight
        self._observation_share = observation_share
        self._learn_empty_thoughts = learn_empty_thoughts
        self._device = device

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
        """Returns the batch of the default module."""
        arrays = demonstration_columns(
            episodes, self._observation_weight, self._observation_share, self._learn_empty_thoughts
        )
        if metrics is not None:
            tokens = int(arrays[columns.LENGTHS].sum())
            metrics.log_value((DEFAULT_MODULE_ID, "num_tokens_trained"), tokens, reduce="sum")
        return {DEFAULT_MODULE_ID: {name: torch.from_numpy(a).to(self._device) for name, a in arrays.items()}}


def demonstration_columns(
    episodes: Sequence[Episode],
    observation_weight: float,
    observation_share: float = 1.0,
    learn_empty_thoughts: bool = False,
) -> dict[str, np.ndarray]:
    """Columns with a weight for every token; a response that shall not be copied has none.

    Args:
        episodes: demonstrations.
        observation_weight: of the context tokens.
        observation_share: share of them that have it; the others have none. The draw depends on the episodes alone.
        learn_empty_thoughts: whether the tokens of a thought without words have a weight.
    """
    demonstrated = {e.episode_id: np.array([float(turn.demonstration) for turn in e.turns]) for e in episodes}
    arrays = pad_sequences(episodes, demonstrated)
    responses = arrays[columns.LOSS_MASK]
    real = np.arange(responses.shape[1]) < arrays[columns.LENGTHS][:, None]
    if observation_share < 1:
        rng = np.random.default_rng(zlib.crc32("".join(demonstrated).encode()))
        real &= rng.random(real.shape, dtype=np.float32) < observation_share
    weights = np.where(responses, arrays[columns.ADVANTAGES], observation_weight * real).astype(np.float32)
    if not learn_empty_thoughts:
        weights[_empty_thoughts(episodes, weights.shape)] = 0.0
    weights[:, 0] = 0.0  # nothing predicts the first token
    return arrays | {columns.LOSS_WEIGHTS: weights, columns.LOSS_MASK: weights > 0}


def _empty_thoughts(episodes: Sequence[Episode], shape: tuple[int, ...]) -> np.ndarray:
    """Which tokens hold nothing but a thought without words; bool, rows as `pad_sequences` lays them out."""
    mask = np.zeros(shape, bool)
    rows = [(episode, sequence) for episode in episodes for sequence in episode.sequences()]
    for row, (episode, sequence) in enumerate(rows):
        for index, (start, _) in zip(sequence.turns, sequence.spans, strict=True):
            mask[row, start : start + episode.turns[index].empty_thought] = True
    return mask


class BehaviourCloningLearner(ProxMOLearner):
    """ProxMO's Learner with other connectors and another loss."""

    @override(ProxMOLearner)
    def _connectors(self) -> list[Any]:
        config: Any = self.config
        return [
            DemonstrationBatches(
                config.observation_weight, config.observation_share, config.learn_empty_thoughts, self._device
            )
        ]

    @override(ProxMOLearner)
    def _choose_normalization(self) -> Normalization:
        return Normalization()

    @override(ProxMOLearner)
    def _choose_policy_loss(self) -> PolicyLoss | None:
        return None

    @override(ProxMOLearner)
    def token_loss(self, batch: dict[str, Any], outputs: dict[str, torch.Tensor]) -> TokenLoss:
        return imitation(outputs[columns.LOGPROBS], batch[columns.LOSS_WEIGHTS][batch[columns.LOSS_MASK]])
