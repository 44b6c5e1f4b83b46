"""A tokenizer's chat template as a function from messages to text: always the same text for the same messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from jinja2 import TemplateError

#: What a template that prints today's date gets to see, unless the config says another day.
TODAY = "2026-01-01"

Message = dict[str, Any]

# What a template raises by itself, and what Python does in an expression of one.
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)


class ChatTemplate:
    """Renders messages.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        kwargs: variables of the template, such as `enable_thinking`.
        today: the day that the template prints if it prints one, YYYY-MM-DD. A template never sees the clock: a run
            that is resumed tomorrow has the prompts of today.

    Raises:
        ValueError: there is no template, or it reads no variable of that name.
    """

    def __init__(self, tokenizer: Any, kwargs: Mapping[str, Any] | None = None, today: str = TODAY) -> None:
        self._name = tokenizer.name_or_path
        if not tokenizer.chat_template:
            raise ValueError(
                f"The tokenizer of {self._name!r} has no chat template, so a conversation cannot be put "
                "into tokens. Use an instruction-tuned model, or set `tokenizer.chat_template` and save the tokenizer "
                "beside the model."
            )
        self.source: str = tokenizer.get_chat_template()
        for key in kwargs or {}:
            if not re.search(rf"\b{re.escape(key)}\b", self.source):
                raise ValueError(
                    f"chat_template_kwargs={dict(kwargs or {})!r}: the chat template of {self._name!r} reads no "
                    f"variable {key!r}; take it out, or look for the right name in the template."
                )
        self._tokenizer = tokenizer
        self._kwargs = dict(kwargs or {})
        self._today = date.fromisoformat(today)

    def __call__(
        self, messages: Sequence[Message], *, reply_next: bool = True, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The text of messages.

        Args:
            messages: what was said, each with `role` and `content`.
            reply_next: whether the opening of the assistant's next reply ends it.
            tools: schemas of functions that the assistant may call.

        Raises:
            ValueError: the template refuses them.
        """
        try:
            return self._render(messages, self._today, reply_next, tools)
        except _REFUSALS as error:
            raise ValueError(self._refusal(messages, reply_next, error)) from error

    def prints_the_date(self, messages: Sequence[Message]) -> bool:
        """Whether the text would be another on another day."""
        other = self._today.replace(year=self._today.year + 1, day=1 if self._today.day > 1 else 2)
        return self(messages) != self._render(messages, other, True)

    def _render(
        self,
        messages: Sequence[Message],
        today: date,
        reply_next: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=reply_next,
            strftime_now=today.strftime,
            **self._kwargs,
        )
        return text

    def _refusal(self, messages: Sequence[Message], reply_next: bool, error: Exception) -> str:
        roles = [message["role"] for message in messages]
        what = f"The chat template of {self._name!r} refuses a conversation of the roles {roles}: {error}"
        if roles[0] != "system":
            return f"{what}. Use another template."
        try:
            self._render(messages[1:], self._today, reply_next)
        except _REFUSALS:
            return f"{what}. Use another template."
        return f"{what}. It knows no system message: set system_message=None."
