"""From observations to the user messages that an agent reads."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium

from env_wrappers.core import check_choice
from env_wrappers.prompting.templates import ANSWER_FORMATS, TEMPLATES, Template


class Prompting(gymnasium.Wrapper[str, str, str, str]):
    """Makes the observation the text of a user message. `info["anchor"]` is the bare observation.

    With `history=None` the messages are those of one conversation: the first has the template's instructions, later
    ones only what is new, and the agent is to be shown all of them with its own responses in between. With
    `history=K` every message is a prompt of its own: instructions, the last K turns, the current observation.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        template: str | Template = "instructed",
        history: int | None = None,
        show_admissible: bool = False,
    ) -> None:
        """Wrap an environment, with or without an `ActionParsing` in it, whose style the instructions then explain.

        Args:
            env: a text environment.
            template: a template or the name of one.
            history: None, or the number of earlier turns in a prompt, 0 or more.
            show_admissible: whether to list the admissible actions, where the environment gives them.
        """
        super().__init__(env)
        if isinstance(template, str):
            check_choice("template", template, tuple(TEMPLATES))
            template = TEMPLATES[template]
        if history is not None and history < 0:
            raise ValueError(f"history={history}: give the number of earlier turns in a prompt, 0 or more, or None.")
        self.template = template
        self.history = history
        self.show_admissible = show_admissible
        style = env.get_wrapper_attr("style") if env.has_wrapper_attr("style") else "bare"
        self._answer = ANSWER_FORMATS[style]
        self._past: deque[tuple[str, str]] = deque(maxlen=history)  # (observation, action) of earlier turns
        self._turn = 0
        self._observation = ""

    @property
    def append_only(self) -> bool:
        """Whether messages belong to one conversation."""
        return self.history is None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._past.clear()
        self._turn = 0
        self._observation = observation
        return self._message(info), {**info, "anchor": observation}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.history is not None:
            self._past.append((self._observation, info.get("action", action)))
        self._turn += 1
        self._observation = observation
        return self._message(info), float(reward), terminated, truncated, {**info, "anchor": observation}

    def _message(self, info: dict[str, Any]) -> str:
        template = self.template
        actions = template.list_actions(info.get("admissible_actions", ())) if self.show_admissible else ""
        if self.append_only and self._turn:
            return self._observation + actions
        fields = {"goal": info.get("goal", ""), "answer": self._answer}
        parts = [(template.window_opening if self._turn else template.opening).format(**fields)]
        if skipped := self._turn - len(self._past):
            parts.append(template.skipped.format(number=skipped))
        parts += [template.past.format(observation=seen, action=done) for seen, done in self._past]
        parts.append(template.current.format(observation=self._observation))
        return "".join(parts) + actions
