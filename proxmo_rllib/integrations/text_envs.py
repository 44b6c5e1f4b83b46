"""Text environments for other programs: from a name to an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers its environments with Gymnasium)
from env_wrappers.conformance import resolve
from env_wrappers.contract import construct


def bare_env(env: Any, env_config: Mapping[str, Any] | None = None) -> gymnasium.Env[str, str]:
    """The environment itself.

    Args:
        env: a Gymnasium id, a class, a function that makes one, or "module:Name" of any of these.
        env_config: its arguments.

    Raises:
        ValueError: there is no such environment, or it does not take the arguments.
    """
    made: gymnasium.Env[str, str]
    if isinstance(env, str):
        env = resolve(env)
    if isinstance(env, str):
        made = gymnasium.make(env, disable_env_checker=True, **dict(env_config or {}))
        return made
    made = construct(env, dict(env_config or {}))
    return made
