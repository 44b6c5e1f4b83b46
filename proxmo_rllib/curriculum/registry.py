"""Task orders, horizons and dynamic samplings by name: what a configuration says, and how a user adds an own one.

Each is a class, or a function that makes one, of a `Context` and of keyword options with defaults. Of the user's own:

    @register_task_order("shortest_first")
    class ShortestFirst(TaskOrder):
        def __init__(self, context, *, longest=80):
            self._tasks = sorted((task for task in context.tasks if len(task) <= longest), key=len)

        def task(self, position):
            return self._tasks[position % len(self._tasks)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from proxmo_rllib.curriculum.parts import DynamicSampling, Horizon, TaskOrder
from proxmo_rllib.registry import Option, Registry, number

_Order = TypeVar("_Order", bound=Callable[..., TaskOrder])
_Horizon = TypeVar("_Horizon", bound=Callable[..., Horizon])
_Sampling = TypeVar("_Sampling", bound=Callable[..., DynamicSampling])


def _whole(says: str) -> Option:
    return Option(says, lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1)


OPTIONS: Mapping[str, Option] = {
    "at_most": Option("a multiple of num_groups, at least 1", number(1.0)),
    "low": Option("a success rate, from 0 to 1", number(0.0, 1.0)),
    "high": Option("a success rate, from 0 to 1", number(0.0, 1.0)),
    "outside": Option("a probability above 0, at most 1", number(0.0, 1.0, open_low=True)),
    "decay": Option("a factor from 0 to 1", number(0.0, 1.0)),
    "min_episodes": _whole("a number of episodes, at least 1"),
    "start": _whole("a number of turns, at least 1"),
    "step": _whole("a number of turns, at least 1"),
    "every": _whole("a number of iterations, at least 1"),
    "success": Option("a success rate above 0, at most 1", number(0.0, 1.0, open_low=True)),
    "groups": _whole("a number of groups, at least 1"),
}
TASK_ORDERS: Registry[Callable[..., TaskOrder]] = Registry("task order", "@register_task_order(name)", OPTIONS)
HORIZONS: Registry[Callable[..., Horizon]] = Registry("horizon", "@register_horizon(name)", OPTIONS)
DYNAMIC_SAMPLINGS: Registry[Callable[..., DynamicSampling]] = Registry(
    "dynamic sampling", "@register_dynamic_sampling(name)", OPTIONS
)


def register_task_order(name: str) -> Callable[[_Order], _Order]:
    """Makes a task order known by a name, from anywhere; its keyword arguments become its options.

    Raises:
        ValueError: another one has this name already, or an option has no default.
    """
    register: Callable[[_Order], _Order] = TASK_ORDERS.register(name)  # type: ignore[assignment]
    return register


def register_horizon(name: str) -> Callable[[_Horizon], _Horizon]:
    """Makes a horizon known by a name, as `register_task_order` does an order."""
    register: Callable[[_Horizon], _Horizon] = HORIZONS.register(name)  # type: ignore[assignment]
    return register


def register_dynamic_sampling(name: str) -> Callable[[_Sampling], _Sampling]:
    """Makes a dynamic sampling known by a name, as `register_task_order` does an order."""
    register: Callable[[_Sampling], _Sampling] = DYNAMIC_SAMPLINGS.register(name)  # type: ignore[assignment]
    return register
