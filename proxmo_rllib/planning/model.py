"""A model as a plan sees it: its shape, and passes rehearsed on it, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.planning.model_shape import read_config, shape_of
from proxmo_rllib.planning.rehearsal import Arithmetic, Rehearsal, adapted_layers
from proxmo_rllib.policies.checkpoint_names import model_without_weights


class PlannedModel:
    """A model of which nothing but the config is here.

    Args:
        config: of transformers.
        name: how the user calls it.
    """

    def __init__(self, config: Any, name: str) -> None:
        self.config = config
        self.name = name
        self.shape = shape_of(config)
        self._rehearsals: dict[Arithmetic, Rehearsal] = {}

    @classmethod
    def read(cls, source: str | Path) -> PlannedModel:
        """The model of a config.json, a folder, a hub name or an asset.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        return cls(read_config(source), str(source))

    def rehearsal(self, arithmetic: Arithmetic) -> Rehearsal:
        """The model, to be computed in a way."""
        if arithmetic not in self._rehearsals:
            self._rehearsals[arithmetic] = Rehearsal(self.config, arithmetic)
        return self._rehearsals[arithmetic]

    def adapter_weights(self, lora: LoRA) -> int:
        """Weights of its adapters.

        Raises:
            ValueError: no layer of the model has one.
        """
        layers = adapted_layers(model_without_weights(self.config), lora)
        return sum(lora.rank * (layer.in_features + layer.out_features) for _, _, layer in layers)
