"""One module an estimator; importing this package registers them all."""

from proxmo_rllib.advantages.estimators import (
    dr_grpo,
    gigpo,
    graphgpo,
    grpo,
    hgpo,
    maxrl,
    proxmo,
    proxmo_official,
    proxmo_without_aggregation,
    reinforce_plus_plus_baseline,
    rloo,
)

__all__ = [
    "dr_grpo",
    "gigpo",
    "graphgpo",
    "grpo",
    "hgpo",
    "maxrl",
    "proxmo",
    "proxmo_official",
    "proxmo_without_aggregation",
    "reinforce_plus_plus_baseline",
    "rloo",
]
