"""From a response of the agent to the action that the environment gets, and a price for responses that are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium

from env_wrappers.core import check_choice, is_admissible

STYLES = ("bare", "tagged")

_BLANKS = re.compile(r"\s*")

MAX_UNPARSED = 200  # characters of a response without an action that the environment is shown


def parse_action(response: str, style: str) -> str | None:
    """The action in a response, or None if it has not the format of the style.

    Args:
        response: what the agent said, with what its prompt opened: where that ends with `<think>`, so it begins.
        style: "bare": all of it is the action, or all that follows if it begins with a `<think>..</think>`. "tagged":
            a `<think>..</think>`, then the action between the last `<action>` and `</action>`.
    """
    if style == "bare":
        return response[_end_of_thoughts(response) :].strip() or None
    # The last pair counts: a model that thinks aloud may well quote the tags before. Plain searches and no regular
    # expression, which some responses would keep busy for minutes.
    end = response.rfind("</action>")
    start = response.rfind("<action>", 0, max(end, 0))
    thought = response.find("<think>")
    if start < 0 or thought < 0 or not 0 <= response.find("</think>", thought) < start:
        return None
    return response[start + len("<action>") : end].strip() or None


def _end_of_thoughts(response: str) -> int:
    """Where the thoughts end with which a response begins; its length if one of them does not end."""
    place = _BLANKS.match(response, 0).end()  # type: ignore[union-attr]
    while response.startswith("<think>", place):
        end = response.find("</think>", place)
        if end < 0:
            return len(response)
        place = _BLANKS.match(response, end + len("</think>")).end()  # type: ignore[union-attr]
    return place


class ActionParsing(gymnasium.Wrapper[str, str, str, str]):
    """Takes responses in the place of actions.

    `info["action"]` is the string that the environment got, `info["action_valid"]` whether the response had the right
    format and, where the environment lists admissible actions, the action was one of them. A response without an
    action goes to the environment as it is, stripped and cut, for the environment to refuse in its own words.
    """

    def __init__(self, env: gymnasium.Env[str, str], style: str = "tagged") -> None:
        """Args: env: a text environment. style: "bare" or "tagged", as in `parse_action`."""
        super().__init__(env)
        check_choice("style", style, STYLES)
        self.style = style
        self._admissible: Sequence[str] = ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._admissible = info.get("admissible_actions", ())
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Args: action: the agent's response."""
        parsed = parse_action(action, self.style)
        sent = action.strip()[:MAX_UNPARSED] if parsed is None else parsed
        valid = parsed is not None and (not self._admissible or is_admissible(parsed, self._admissible))
        observation, reward, terminated, truncated, info = self.env.step(sent)
        self._admissible = info.get("admissible_actions", ())
        info = {**info, "action": sent, "action_valid": valid}
        return observation, float(reward), terminated, truncated, info


class InvalidActionPenalty(gymnasium.Wrapper[str, str, str, str]):
    """Takes a fixed price from the reward of every turn whose action is invalid. Success and score stay as they are."""

    def __init__(self, env: gymnasium.Env[str, str], penalty: float) -> None:
        """Args: env: with an `ActionParsing` in it. penalty: unit of reward, 0 or more."""
        super().__init__(env)
        if not penalty >= 0:
            raise ValueError(f"penalty={penalty!r}: it is subtracted from the reward, so it must be 0 or more.")
        if not env.has_wrapper_attr("style"):
            raise ValueError(
                f"InvalidActionPenalty needs to know which actions are valid; wrap {env} in ActionParsing."
            )
        self.penalty = penalty

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not info["action_valid"]:
            reward = float(reward) - self.penalty
        return observation, float(reward), terminated, truncated, info
