"""Plans: the memory and the time of a run, from its settings and its model's config.json, before anything is loaded."""

from proxmo_rllib.planning.duration import Play
from proxmo_rllib.planning.hardware import Hardware, measure_processors, this_machines_gpus
from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.planning.plan import Plan, make_plan, reserved_gpus
from proxmo_rllib.planning.settings import PlannedSettings

__all__ = [
    "Hardware",
    "Plan",
    "PlannedModel",
    "PlannedSettings",
    "Play",
    "make_plan",
    "measure_processors",
    "reserved_gpus",
    "this_machines_gpus",
]
