"""Reinforcement learning for multi-turn LLM agents on Ray RLlib, with ProxMO.

The names below are loaded when they are first used: importing the package costs nothing, and neither does a part of it
that needs no Ray (`proxmo_rllib.advantages`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from proxmo_rllib.machine.processors import share_processors

if TYPE_CHECKING:
    from proxmo_rllib.algorithm import ProxMO
    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.stopping import StopCriteria

__version__ = "0.1.0"
__all__ = ["ProxMO", "ProxMOConfig", "StopCriteria", "__version__"]

# Here, since Ray, torch and this package's own processes read them before anything else of it runs.
share_processors(os.environ)


def __getattr__(name: str) -> Any:
    if name == "ProxMOConfig":
        from proxmo_rllib.config import ProxMOConfig

        return ProxMOConfig
    if name == "ProxMO":
        from proxmo_rllib.algorithm import ProxMO

        return ProxMO
    if name == "StopCriteria":
        from proxmo_rllib.stopping import StopCriteria

        return StopCriteria
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
