"""Which task a group plays, for how many turns, and whether anything is learned from it.

    TaskSampler.next ──assignment──► is played ──group──► TaskSampler.judge ──outcome──► TaskSampler.ended
         ▲ TaskOrder, Horizon                               DynamicSampling                  all three

Who samples pulls one assignment after the other and pushes one outcome after the other, in any rhythm: nothing here
knows of iterations. What is dealt is a function of the seed and of the outcomes before it, in their order, so a run has
one sampler; its state is JSON. One module a kind of part, each chosen by a word and options, see `registry`.
"""

from proxmo_rllib.curriculum.dynamic_sampling import ByAdvantage, ByOutcome, KeepAll
from proxmo_rllib.curriculum.horizons import ByIterations, BySuccess, Full
from proxmo_rllib.curriculum.parts import Context, DynamicSampling, GroupOutcome, Horizon, TaskOrder
from proxmo_rllib.curriculum.registry import (
    DYNAMIC_SAMPLINGS,
    HORIZONS,
    TASK_ORDERS,
    register_dynamic_sampling,
    register_horizon,
    register_task_order,
)
from proxmo_rllib.curriculum.sampler import TaskSampler
from proxmo_rllib.curriculum.task_orders import Epochs, SuccessRate

__all__ = [
    "DYNAMIC_SAMPLINGS",
    "HORIZONS",
    "TASK_ORDERS",
    "ByAdvantage",
    "ByIterations",
    "ByOutcome",
    "BySuccess",
    "Context",
    "DynamicSampling",
    "Epochs",
    "Full",
    "GroupOutcome",
    "Horizon",
    "KeepAll",
    "SuccessRate",
    "TaskOrder",
    "TaskSampler",
    "register_dynamic_sampling",
    "register_horizon",
    "register_task_order",
]
