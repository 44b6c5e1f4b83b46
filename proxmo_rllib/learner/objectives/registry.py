"""Objectives by name, and the options that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from proxmo_rllib.learner.losses import Objective
from proxmo_rllib.registry import Option, Registry, number, optional

_Objective = TypeVar("_Objective", bound=Objective)

OPTIONS: Mapping[str, Option] = {
    "clip_low": Option("what is taken from 1 for the lower bound of the ratio, from 0 to 1", number(0.0, 1.0)),
    "clip_high": Option("what is added to 1 for the upper bound of the ratio, at least 0", number(0.0)),
    "dual_clip": Option("a bound of the ratio above 1, or None", optional(number(1.0, open_low=True))),
}
OBJECTIVES: Registry[Objective] = Registry("objective", "@register_objective(name)", OPTIONS)


def register_objective(name: str) -> Callable[[_Objective], _Objective]:
    """Makes an objective known by a name, from anywhere; its keyword arguments become its options.

    It takes `LossTokens` and returns a `Surrogate`.

    Raises:
        ValueError: another function has this name already, or an option has no default.
    """
    register: Callable[[_Objective], _Objective] = OBJECTIVES.register(name)  # type: ignore[assignment]
    return register
