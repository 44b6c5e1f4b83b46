"""From the text of an environment to the text of a prompt, and from a response to an action.

Gymnasium wrappers, text to text, for any text environment. `wrap` puts them in their order:

    environment <- KeptContract <- ActionParsing <- InvalidActionPenalty <- Prompting <- the agent
"""

from __future__ import annotations

from typing import Any

import gymnasium

from env_wrappers.contract import KeptContract
from env_wrappers.prompting.parsing import ActionParsing, InvalidActionPenalty
from env_wrappers.prompting.prompt import Prompting
from env_wrappers.prompting.templates import BARE, INSTRUCTED, TEMPLATES, Template

__all__ = ["BARE", "INSTRUCTED", "TEMPLATES", "ActionParsing", "InvalidActionPenalty", "Prompting", "Template", "wrap"]


def wrap(
    env: gymnasium.Env[str, str],
    *,
    style: str = "tagged",
    template: str | Template = "instructed",
    history: int | None = None,
    show_admissible: bool = False,
    invalid_action_penalty: float = 0.0,
) -> gymnasium.Env[str, str]:
    """Wrap a text environment so that observations are user messages and actions are an agent's responses.

    Args:
        env: the environment, bare.
        style: how a response holds its action: "tagged" (`<think>..</think><action>..</action>`) or "bare".
        template: a template, or the name of one: "instructed" or "bare".
        history: None for a conversation to append to; K for a fresh prompt every turn with the last K turns in it.
        show_admissible: whether messages list the admissible actions.
        invalid_action_penalty: taken from the reward of a turn whose action is invalid, unit of reward; 0 or more.
    """
    wrapped: gymnasium.Env[Any, Any] = ActionParsing(KeptContract(env), style)
    if invalid_action_penalty:
        wrapped = InvalidActionPenalty(wrapped, invalid_action_penalty)
    return Prompting(wrapped, template=template, history=history, show_admissible=show_admissible)
