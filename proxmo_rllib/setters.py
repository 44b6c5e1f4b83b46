"""Methods of a config that set settings: their signature is the one place where a setting and its default stand."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from ray.rllib.algorithms.algorithm_config import NotProvided

P = ParamSpec("P")
R = TypeVar("R")


def setter(method: Callable[P, R]) -> Callable[P, R]:
    """Makes a method of a config set the settings that a call of it names, and no others.

    The settings are the method's keyword-only arguments, and their defaults are the config's: `default_settings` has
    them. The method's body gets what else is given (RLlib's own settings, by `**kwargs`), and returns the config.
    """
    parameters = inspect.signature(method).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    call = cast(Callable[..., Any], method)

    @functools.wraps(method)
    def set_settings(config: Any, *args: Any, **given: Any) -> Any:
        result = call(config, *args, **{key: value for key, value in given.items() if key not in own})
        for key in own.keys() & given.keys():
            if given[key] is not NotProvided:
                setattr(config, key, dict(given[key]) if isinstance(given[key], Mapping) else given[key])
        return result

    set_settings.settings = own  # type: ignore[attr-defined]
    return cast(Callable[P, R], set_settings)


def settings_of(method: Any) -> dict[str, Any]:
    """The settings of a method that `setter` made, with their defaults."""
    return dict(getattr(method, "settings", {}))


def default_settings(config_class: type) -> dict[str, Any]:
    """The settings of all methods of a config that `setter` made, with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(config_class.__mro__):
        for method in vars(base).values():
            for key, default in settings_of(method).items():
                found[key] = dict(default) if isinstance(default, Mapping) else copy.copy(default)
    return found
