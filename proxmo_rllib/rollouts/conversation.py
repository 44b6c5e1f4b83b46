"""From text messages to token ids, without ever encoding a response again.

The chat template of the tokenizer is taken apart once, into the pieces around a user message and around an assistant
message. After that a conversation only ever grows: the ids that the engine sampled stay as they are, and the pieces and
the encoded observations are put around them. An observation is data: special tokens that occur in its text are encoded
as ordinary characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

# Words that no template changes and no text contains.
_USER, _REPLY, _NEXT = "USERMESSAGE0", "ASSISTANTMESSAGE0", "USERMESSAGE1"


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    chat_template: Any
    eos_token_id: int | None
    name_or_path: str
    added_tokens_decoder: Mapping[int, Any]

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...

    def decode(self, token_ids: Any, **kwargs: Any) -> str: ...

    def __call__(self, text: str, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The pieces of a chat template, as token ids.

    An opening prompt is `head + message + reply_opening`. A following message is `reply_closing + user_opening +
    message + reply_opening`, where `reply_closing` ends the assistant's message.
    """

    tokenizer: Tokenizer
    head: tuple[int, ...]
    reply_opening: tuple[int, ...]
    reply_closing: tuple[int, ...]  # ends with the stop token
    user_opening: tuple[int, ...]
    stop_token_ids: tuple[int, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, system: str | None = None) -> ChatFormat:
        """Takes the tokenizer's chat template apart.

        Args:
            tokenizer: a Hugging Face tokenizer with a chat template.
            system: text of a system message that opens every conversation, if any.

        Raises:
            ValueError: the tokenizer has no chat template, or one that drops or reorders messages.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} has no chat template, so a conversation cannot be put "
                "into tokens. Use an instruction-tuned model, or set `tokenizer.chat_template` and save the tokenizer "
                "beside the model."
            )
        opening = [{"role": "system", "content": system}] if system else []
        first = opening + [{"role": "user", "content": _USER}]
        whole = first + [{"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}]
        prompt = _render(tokenizer, first)
        rendered = _render(tokenizer, whole)
        try:
            head, reply_opening = prompt.split(_USER)
            between = rendered.removeprefix(head + _USER).split(_REPLY)[1]
            between, _ = between.split(_NEXT)
        except (ValueError, IndexError):
            raise ValueError(_reordered(tokenizer, rendered)) from None
        if not rendered.startswith(head + _USER):
            raise ValueError(_reordered(tokenizer, rendered))
        reply_closing, user_opening = _split_after_stop(tokenizer, _encode(tokenizer, between), between)
        stops = [reply_closing[-1]]
        if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
            stops.append(tokenizer.eos_token_id)
        return cls(
            tokenizer=tokenizer,
            head=_encode(tokenizer, head),
            reply_opening=_encode(tokenizer, reply_opening),
            reply_closing=reply_closing,
            user_opening=user_opening,
            stop_token_ids=tuple(stops),
        )

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens that occur in it are encoded as the characters they consist of."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode_response(self, response_ids: np.ndarray) -> str:
        """Text of a response, without its stop token."""
        ids = response_ids.tolist()
        if ids and ids[-1] in self.stop_token_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def _encode(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = [message["role"] for message in messages]
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} refuses a conversation of the roles {roles}: {error}. "
            "If it knows no system message, leave system_message=None; otherwise use another template."
        ) from error
    return rendered


def _split_after_stop(
    tokenizer: Tokenizer, closing: tuple[int, ...], text: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What ends a reply, up to and with the first special token, and what then opens the next user message.

    A model stops by sampling a special token. Templates may put a space or a line break before it, which an agent that
    stops by itself need not say.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for place, token_id in enumerate(closing):
        if token_id in special:
            return closing[: place + 1], closing[place + 1 :]
    raise ValueError(
        f"The chat template of {tokenizer.name_or_path!r} puts {text!r} between the assistant's reply and the next "
        "message: there is no special token in it, so a reply has no end. Use a template with an end-of-turn token."
    )


def _reordered(tokenizer: Tokenizer, rendered: str) -> str:
    return (
        f"The chat template of {tokenizer.name_or_path!r} does not keep the messages as they were when new ones come: "
        f"it rendered {rendered!r}. Use another template."
    )


class Conversation:
    """The token ids of one conversation, grown message by message.

    Args:
        chat: pieces of the chat template.
        append: True keeps every message (an append-only conversation). False starts anew with every message, whose text
            then carries its own history.
    """

    def __init__(self, chat: ChatFormat, *, append: bool) -> None:
        self._chat = chat
        self._append = append
        self._ids: list[int] = []

    def say(self, message: str) -> tuple[np.ndarray, bool]:
        """Adds a user message and the opening of the reply.

        Returns:
            The new ids, int32 [context], and whether they follow the previous response (else they are a whole prompt).
        """
        chat = self._chat
        follows = self._append and bool(self._ids)
        if follows:
            closing: tuple[int, ...] = () if self._ids[-1] in chat.stop_token_ids else chat.reply_closing
            opening = closing + chat.user_opening
        else:
            self._ids = []
            opening = chat.head
        new = [*opening, *chat.encode_text(message), *chat.reply_opening]
        self._ids += new
        return np.asarray(new, dtype=np.int32), follows

    def reply(self, response_ids: np.ndarray) -> None:
        """Adds the ids that the agent sampled."""
        self._ids += response_ids.tolist()

    @property
    def token_ids(self) -> list[int]:
        """All ids so far: the prompt of the next response."""
        return self._ids
