"""Observations as agents are usually given them."""

from __future__ import annotations

from typing import Any

import gymnasium

from env_wrappers.webshop.shop import SEPARATOR


class WithoutInstruction(gymnasium.ObservationWrapper[str, str, str]):
    """Leaves out what every page begins with, up to and including the instruction.

    Prompts tell the goal once; `info["goal"]` has it.
    """

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        """Args: env: WebShop, bare or wrapped, below `env_wrappers.prompting`."""
        super().__init__(env)
        self._goal = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._goal = info["goal"]
        return self.observation(observation), info

    def observation(self, observation: str) -> str:
        """The page without its head; the last page has none."""
        head, found, page = observation.partition(f"Instruction:{SEPARATOR}{self._goal}{SEPARATOR}")
        return page if found and head in ("", f"WebShop{SEPARATOR}") else observation
