"""The words around an observation.

The fields are format strings. Only the template is one: braces in an observation are text like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """The parts of a user message, from top to bottom. Each but the last is followed by what comes next as it is.

    Attributes:
        name: what configs call it.
        opening: head of a conversation, and of every prompt with a window. Fields: goal, answer (the format).
        window_opening: as `opening`, for turns after the first of a window, whose observation has the goal no more.
        past: one earlier turn. Fields: observation, action.
        skipped: in the place of turns that the window has lost. Field: number.
        current: the observation to answer. Field: observation.
        admissible: the actions that are possible now. Field: actions, one a line.
        hidden_actions: admissible actions that are not listed.
    """

    name: str
    opening: str
    window_opening: str
    past: str
    skipped: str
    current: str
    admissible: str
    hidden_actions: frozenset[str] = frozenset({"help"})

    def list_actions(self, actions: Sequence[str]) -> str:
        """The part about admissible actions; empty where there are none to show."""
        shown = [action for action in actions if action not in self.hidden_actions]
        return self.admissible.format(actions="\n".join(shown)) if shown else ""


BARE = Template(
    name="bare",
    opening="",
    window_opening="Task: {goal}\n\n",
    past="{observation}\n> {action}\n",
    skipped="",
    current="{observation}",
    admissible="\n\nActions:\n{actions}",
)

_RULES = """You get a task done in a world that is made of text. \
Each turn you read what you observe and do one action; then you read what came of it.
{answer}

"""

INSTRUCTED = Template(
    name="instructed",
    opening=_RULES + "The task: {goal}\n\n",
    window_opening=_RULES + "The task: {goal}\n\n",
    past="You observed:\n{observation}\nYou did: {action}\n\n",
    skipped="({number} earlier turns are left out.)\n\n",
    current="You observe now:\n{observation}",
    admissible="\n\nActions that you can do now, one a line:\n{actions}",
)

TEMPLATES: Mapping[str, Template] = {template.name: template for template in (BARE, INSTRUCTED)}

# How each style of `ActionParsing` is explained to a model.
ANSWER_FORMATS: Mapping[str, str] = {
    "bare": "Answer with the action and nothing else.",
    "tagged": (
        "Answer in two parts: first your reasoning between <think> and </think>, then exactly one action between "
        "<action> and </action>."
    ),
}
