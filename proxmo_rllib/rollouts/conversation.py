"""From text messages to token ids, without ever encoding a response again.

The chat template of the tokenizer is taken apart once, into the pieces around a user message and around an assistant
message. After that a conversation only ever grows: the ids that the engine sampled stay as they are, and the pieces and
the encoded observations are put around them. An observation is data: special tokens that occur in its text are encoded
as ordinary characters.
"""

from __future__ import annotations

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
    reply_closing: tuple[int, ...]  # begins with the stop token
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
        prompt: str = tokenizer.apply_chat_template(first, tokenize=False, add_generation_prompt=True)
        rendered: str = tokenizer.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
        try:
            head, reply_opening = prompt.split(_USER)
            between = rendered.split(_REPLY)[1]
            closing_and_opening, _ = between.split(_NEXT)
        except (ValueError, IndexError):
            raise ValueError(
                f"The chat template of {tokenizer.name_or_path!r} does not keep the messages in order: it rendered "
                f"{rendered!r}. Use another template."
            ) from None
        closing = _encode(tokenizer, closing_and_opening)
        if not closing:
            raise ValueError(
                f"The chat template of {tokenizer.name_or_path!r} puts nothing between the assistant's reply and the "
                "next message, so a reply has no end. Use a template with an end-of-turn token."
            )
        stops = [closing[0]]
        if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
            stops.append(tokenizer.eos_token_id)
        return cls(
            tokenizer=tokenizer,
            head=_encode(tokenizer, head),
            reply_opening=_encode(tokenizer, reply_opening),
            reply_closing=closing[:1],
            user_opening=closing[1:],
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
