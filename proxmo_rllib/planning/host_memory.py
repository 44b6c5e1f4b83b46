"""Memory of a machine that carries all of a run's processes."""

from __future__ import annotations

from proxmo_rllib.planning.demand import Demand, Part
from proxmo_rllib.planning.hardware import GIB, Hardware
from proxmo_rllib.planning.settings import PlannedSettings

# An environment runner without what its environments hold, the run's own process, and Ray's: measured.
_RUNNER = 0.45 * GIB
_DRIVER = 0.6 * GIB
_RAY = 0.4 * GIB


def host_memory(demands: tuple[Demand, ...], settings: PlannedSettings, hardware: Hardware) -> Demand:
    """What all processes of a run take of a machine, if all are on it."""
    parts = [
        Part(f"{demand.count} {demand.who}{'s' * (demand.count > 1)}", demand.count * demand.bytes)
        for demand in demands
        if demand.place == "host"
    ]
    parts.append(Part(f"{settings.num_env_runners} environment runners", settings.num_env_runners * _RUNNER))
    if settings.num_learners:
        parts.append(Part("the run's own process", _DRIVER))
    parts.append(Part("Ray's own processes", _RAY))
    return Demand("all processes", 1, "host", tuple(parts), hardware.host_bytes)
