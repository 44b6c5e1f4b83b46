"""Credit assignment: turns in, advantages out. Numpy and scipy only.

table = TurnTable(group=..., episode=..., reward=..., success=..., anchor=...)
advantages = estimate_advantages(table, "proxmo", gamma=0.95)
advantages.total, advantages.explain(turn), advantages.diagnostics()
"""

from proxmo_rllib.advantages import estimators as _estimators  # importing registers the estimators  # noqa: F401
from proxmo_rllib.advantages.registry import (
    ESTIMATORS,
    Estimator,
    default_options,
    estimate_advantages,
    register_estimator,
    validate_options,
)
from proxmo_rllib.advantages.result import Advantages, Explanation, Neighbour
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Advantages",
    "Explanation",
    "Neighbour",
    "TurnTable",
    "default_options",
    "estimate_advantages",
    "register_estimator",
    "returns_to_go",
    "validate_options",
]
