"""The methods that are compared, what each is tuned over, and what is varied in the ablations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxmo_rllib import ProxMOConfig

#: Of the examples of this project, chosen before this comparison by looking at ProxMO alone.
_EXAMPLES = {"gamma": 0.85, "step_weight": 3.0}


@dataclass(frozen=True)
class Method:
    """An advantage estimator with its options, those that are not named as the estimator has them by default.

    Attributes:
        estimator: its registered name.
        options: of it.
        group_size: episodes a group; an iteration has 128 episodes whatever it is.
    """

    estimator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group_size: int = 8

    def apply(self, config: ProxMOConfig) -> ProxMOConfig:
        """Changes the config and returns it."""
        return config.training(
            advantage_estimator=self.estimator,
            estimator_options=dict(self.options),
            group_size=self.group_size,
            num_groups=EPISODES // self.group_size,
        )

    def described(self) -> dict[str, Any]:
        """Everything that it is, for the record of a run and to tell it from others."""
        return {"estimator": self.estimator, "options": dict(self.options), "group_size": self.group_size}


EPISODES = 128  # of an iteration

PROXMO = "ProxMO"

#: What is compared in every world.
METHODS: Mapping[str, Method] = {
    "GRPO": Method("grpo"),
    "Dr. GRPO": Method("dr_grpo"),
    "RLOO": Method("rloo"),
    "REINFORCE++ with baseline": Method("reinforce_plus_plus_baseline"),
    "GiGPO": Method("gigpo"),
    "HGPO": Method("hgpo"),
    "GraphGPO": Method("graphgpo"),
    PROXMO: Method("proxmo"),
    # With the range of the modulation that the official scripts set.
    "ProxMO, official arithmetic": Method("proxmo_official", {"psc_range": 0.05}),
    "GiGPO, the examples' settings": Method("gigpo", _EXAMPLES | {"normalization": "mean"}),
    "ProxMO, the examples' settings": Method("proxmo", _EXAMPLES | {"normalize_std": False}),
}


@dataclass(frozen=True)
class Tuning:
    """What is tuned, for every method alike.

    Attributes:
        lr_factor: times the learning rate of the world.
        entropy_coef: of the entropy in the loss.
    """

    lr_factor: float
    entropy_coef: float


GRID = tuple(Tuning(factor, entropy) for factor in (0.5, 1.0, 2.0) for entropy in (0.005, 0.02))

#: One thing changed in ProxMO each, as the paper has it otherwise.
ABLATIONS: Mapping[str, Method] = {
    "no modulation": Method("proxmo_without_modulation"),
    "exact anchors": Method("proxmo_without_aggregation"),
    "neither": Method("proxmo_without_aggregation", {"psc_beta": 0.0}),
    "no step advantage": Method("proxmo", {"step_weight": 0.0}),
    "leave one out": Method("proxmo", {"include_self": False}),
    "idf of the batch": Method("proxmo", {"idf_scope": "batch"}),
    "temperature 0.02": Method("proxmo", {"psa_temperature": 0.02}),
    "temperature 0.5": Method("proxmo", {"psa_temperature": 0.5}),
    "beta 0.5": Method("proxmo", {"psc_beta": 0.5}),
    "beta 2": Method("proxmo", {"psc_beta": 2.0}),
    "alpha 1": Method("proxmo", {"psc_alpha": 1.0}),
    "alpha 16, beta 2": Method("proxmo", {"psc_alpha": 16.0, "psc_beta": 2.0}),
    "omega 0.3": Method("proxmo", {"step_weight": 0.3}),
    "omega 3": Method("proxmo", {"step_weight": 3.0}),
    "groups of 4": Method("proxmo", group_size=4),
    "groups of 16": Method("proxmo", group_size=16),
    "no standard deviation": Method("proxmo", {"normalize_std": False}),
    "same time step": Method("proxmo", {"time_pooling": "step"}),
    "two steps around": Method("proxmo", {"time_pooling": 2}),
    "gamma 0.85": Method("proxmo", {"gamma": 0.85}),
    "gamma 1": Method("proxmo", {"gamma": 1.0}),
}
