"""From text messages to token ids, without ever encoding a response again that is trained on.

    first message                    render, encode                        -> a whole prompt
    next one, the template appends   what it puts behind the reply, encode -> ids that follow the sampled ones
    next one, the template rewrites  render all of it, encode              -> a whole prompt, a sequence of its own

Most chat templates only append: a conversation grows, and the ids that the engine sampled stay as they are. Some take
thoughts out of earlier replies when a new message comes, as their models were trained. Then every turn that follows a
thought is a sequence of its own, with the context that the same model would be shown wherever it is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from env_wrappers.prompting.templates import ANSWER_FORMATS
from proxmo_rllib.rollouts.chat_template import TODAY, ChatTemplate, Message
from proxmo_rllib.rollouts.prompt_encoding import PromptEncoder
from proxmo_rllib.rollouts.thoughts import ThoughtFormat, thought_format

# Words that no template changes and no text contains.
_USER, _THOUGHT, _REPLY = "USERMESSAGE0", "THOUGHT0", "ASSISTANTMESSAGE0"
_LATER_USERS = ("USERMESSAGE1", "USERMESSAGE2")
# What stands behind the opening of a thought, before its closing and behind that. A template that keeps thoughts may
# set them apart anew, in its own way.
_Spacing = tuple[str, str, str]
_SPACINGS: tuple[_Spacing, ...] = (
    ("", "", ""),
    ("\n", "\n", "\n\n"),
    ("\n", "\n", "\n"),
    ("", "", "\n"),
    ("", "", "\n\n"),
)


@dataclass(frozen=True, slots=True)
class _History:
    """What becomes of one kind of replies, those with a thought or those without, when the next message comes."""

    appends: bool  # they stay as they were sampled
    with_opening: bool  # the template wants what the prompt opened as a part of them
    spacing: _Spacing | None = None  # the one of a thought with which they stay


class ChatFormat:
    """A chat template and a tokenizer, as the rollouts need them.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template and a `tokenizer.json`.
        system: text of a system message that opens every conversation, if any.
        template_kwargs: variables of the template, such as `enable_thinking`.
        today: the day that a template may print, YYYY-MM-DD.

    Attributes:
        stop_token_ids: end a reply, the template's own first.
        reply_opening: what the template puts between a first message and the reply to it.
        opened: the part of it that the parser needs, since the reply goes on from there: `<think>` or nothing.
        thoughts: how the model marks its thoughts.

    Raises:
        ValueError: the tokenizer has no chat template, one that loses or reorders messages, or one in which a reply
            does not end.
    """

    def __init__(
        self,
        tokenizer: Any,
        system: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        today: str = TODAY,
    ) -> None:
        self.tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, template_kwargs, today)
        self._encoder = PromptEncoder(tokenizer)
        self.thoughts: ThoughtFormat = thought_format(self._template.source)
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        first = self._render([_user(_USER)])
        self._check_order(first, [_USER])
        if system and system.strip() not in first:
            raise ValueError(
                f"system_message={system!r}: the chat template of {tokenizer.name_or_path!r} leaves it out; set "
                "system_message=None, or use another template."
            )
        self.reply_opening = first.partition(_USER)[2]
        opening = self.reply_opening.rfind(self.thoughts.opening)
        self.opened = self.reply_opening[opening:] if opening >= 0 else ""
        self._check_order(
            self._render([_user(_USER), _assistant(_REPLY), _user(_LATER_USERS[0])]), [_USER, _REPLY, _LATER_USERS[0]]
        )
        self._find_end()
        self._unclosed = bool(self.opened) and self.thoughts.closing not in self.opened
        self._thoughtful = self._probe({spacing: self._think(_THOUGHT, _REPLY, spacing) for spacing in _SPACINGS})
        # Where the prompt opens a thought there is no reply without one.
        self._plain = self._thoughtful if self._unclosed else self._probe({None: _REPLY})
        self._blanks = ("", "") if self._unclosed or not self._plain.appends else self._blanks_around_a_reply()

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, system: str | None = None, **settings: Any) -> ChatFormat:
        """With the template that the tokenizer has; the arguments are those of the constructor."""
        return cls(tokenizer, system, **settings)

    @property
    def appends_thoughts(self) -> bool:
        """Whether a reply that thinks stays whole when the next message comes."""
        return self._thoughtful.appends

    @property
    def appends_replies(self) -> bool:
        """Whether a reply without a thought stays as it was sampled when the next message comes."""
        return self._plain.appends

    @property
    def prints_the_date(self) -> bool:
        """Whether prompts say which day it is."""
        return self._template.prints_the_date([*self._system, _user(_USER)])

    @property
    def has_system_message(self) -> bool:
        """Whether every conversation opens with one that is set."""
        return bool(self._system)

    @property
    def template_source(self) -> str:
        """The chat template itself."""
        return self._template.source

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of a whole prompt, as `apply_chat_template` gives them, up to the opening of the next reply.

        Args:
            messages: made by `user_message` and `assistant_message`.
            tools: schemas of functions, for a template that tells of them.
        """
        return self._encoder.encode(self._template([*self._system, *messages], tools=tools))

    def continuation(self, messages: Sequence[Message], last_id: int) -> list[int]:
        """Ids that follow a sampled reply: its end, if it has not ended itself, messages, the next reply's opening.

        Args:
            messages: none of them an assistant's; made by `user_message` or `protect`.
            last_id: of the reply.
        """
        between = self._between(messages)
        closed = last_id == self.stop_token_ids[0] or (last_id in self.stop_token_ids and not self._stop_opens_next)
        if not closed:
            return self._encoder.encode(between)
        # Behind the stop token, as it stands in the prompt: it may swallow the blanks that follow.
        return self._encoder.encode(self._stop + between.partition(self._stop)[2])[1:]

    def user_message(self, text: str) -> Message:
        """What an environment says. It is data: nothing in it is markup, but for the tags in our own instructions."""
        own = ANSWER_FORMATS["tagged"]
        return _user(own.join(self._encoder.protect(said) for said in text.split(own)))

    def protect(self, text: str) -> str:
        """Text for a message in which nothing is markup, whatever it looks like."""
        return self._encoder.protect(text)

    def assistant_message(self, text: str) -> Message:
        """What an agent said, as `decode_response` gives it."""
        thought = self._thinks(text)
        text = self._encoder.protect(text, live="".join((self.thoughts.opening, self.thoughts.closing)))
        return self._as_message(text, with_opening=(self._thoughtful if thought else self._plain).with_opening)

    def appends(self, text: str) -> bool:
        """Whether a reply, as `decode_response` gives it, stays as it was sampled when the next message comes."""
        return (self._thoughtful if self._thinks(text) else self._plain).appends

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text; markup that occurs in it is encoded as the characters that it consists of."""
        return self._encoder.encode(self._encoder.protect(text))

    def decode_response(self, response_ids: np.ndarray) -> str:
        """Text of a response, without its stop token."""
        ids = response_ids.tolist()
        if ids and ids[-1] in self.stop_token_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def read(self, text: str) -> str:
        """A response as the action parser reads it: with what the prompt opened, its thought in `<think>` tags."""
        return self.thoughts.spelt_out(self.opened + text)

    def demonstrate(self, answer: str, thought: str | None = None) -> tuple[np.ndarray, int]:
        """What an agent would have sampled that says this.

        Args:
            answer: what is to be said.
            thought: before it; empty for a thought without words, None for no thought.

        Returns:
            Ids, int32 [response], stop token included, and how many of the first hold nothing but the thought.
        """
        answer = self._encoder.protect(answer)
        if thought is None and not self._unclosed:
            text = self.thoughts.join(None, answer)
        else:
            as_opened = _SPACINGS[self.opened.endswith("\n")]
            text = self._think(self._encoder.protect(thought or ""), answer, self._thoughtful.spacing or as_opened)
        before = text.removesuffix(self.thoughts.answer_opening + answer)
        before, text = self._blanks[0] + before, f"{self._blanks[0]}{text}{self._blanks[1]}"
        prompt = self._stop + self.reply_opening
        given = self._encoder.encode(prompt)
        head = self._encoder.encode(prompt + before)
        whole = self._encoder.encode(f"{prompt}{text}{self._stop}")
        if whole[: len(given)] != given:  # they merge where they meet, so the reply is encoded apart
            given, head = given[:1], self._encoder.encode(self._stop + before)
            whole = self._encoder.encode(f"{self._stop}{text}{self._stop}")
        thinking = _common(head, whole) - len(given) if before.strip() else 0
        return np.asarray(whole[len(given) :], dtype=np.int32), max(thinking, 0)

    def _render(self, messages: list[Message], reply_next: bool = True) -> str:
        return self._template([*self._system, *messages], reply_next=reply_next)

    def _between(self, messages: Sequence[Message]) -> str:
        """What the template puts behind a reply when the messages come."""
        return self._render([_user(_USER), _assistant(_REPLY), *messages]).partition(_REPLY)[2]

    def _find_end(self) -> None:
        """The token that ends a reply: where it is the last message, and else where another follows.

        A model stops by sampling a special token. Templates may put a space or a line break before it, which an agent
        that stops by itself need not say. gpt-oss ends its last message in another way than those before.
        """
        ended = self._render([_user(_USER), _assistant(_REPLY)], reply_next=False).partition(_REPLY)[2]
        between = self._between([_user(_LATER_USERS[0])]).partition(_LATER_USERS[0])[0]
        stop = self._encoder.first_special(ended)
        #: The stop token is the opening of the next message: a reply has no end of its own.
        self._stop_opens_next = stop is None
        if stop is None:
            stop = self._encoder.first_special(between)
        if stop is None:
            raise ValueError(
                f"The chat template of {self.tokenizer.name_or_path!r} puts {between!r} between the assistant's reply "
                "and the next message: there is no special token in it, so a reply has no end. Use a template with an "
                "end-of-turn token."
            )
        self._stop: str = self.tokenizer.convert_ids_to_tokens(stop)
        end_of_text = self.tokenizer.eos_token_id
        others = (end_of_text,) if end_of_text not in (None, stop) else ()
        self.stop_token_ids: tuple[int, ...] = (stop, *others)

    def _check_order(self, rendered: str, words: list[str]) -> None:
        places = [rendered.find(word) for word in words]
        if -1 in places or places != sorted(places):
            raise ValueError(
                f"The chat template of {self.tokenizer.name_or_path!r} does not keep the messages as they were said, "
                f"in their order: it rendered {rendered!r}. Use another template."
            )

    def _thinks(self, text: str) -> bool:
        return self._unclosed or self.thoughts.opening in text

    def _as_message(self, text: str, with_opening: bool) -> Message:
        if self.thoughts.in_fields:
            thought, answer = self.thoughts.split(self.opened + text)
            message = _assistant("" if answer is None else answer)
            return message if thought is None else message | {"thinking": thought}
        return _assistant((self.opened if with_opening else "") + text)

    def _think(self, thought: str, answer: str, spacing: _Spacing) -> str:
        """The reply that says both, as the model goes on from what the prompt opened."""
        after_opening, before_closing, after_closing = spacing
        reply = self.thoughts.join(f"{after_opening}{thought}{before_closing}", after_closing + answer)
        return reply.removeprefix(self.thoughts.opening).removeprefix("\n") if self._unclosed else reply

    def _blanks_around_a_reply(self) -> tuple[str, str]:
        """What some templates put between the opening of a reply and its text, and between that and its end."""
        following = self._render([_user(_USER), self._as_message(_REPLY, self._plain.with_opening), _user("")])
        before, _, behind = following.removeprefix(self._render([_user(_USER)])).partition(_REPLY)
        return before, behind.partition(self._stop)[0]

    def _probe(self, replies: Mapping[Any, str]) -> _History:
        """What becomes of replies of one kind, given by their spacing."""
        # A thought without its opening is none, so what the prompt opened belongs to it.
        for with_opening in (True,) if self._unclosed else (False, True):
            for spacing, reply in replies.items():
                if self._stays(reply, with_opening):
                    return _History(True, with_opening, spacing)
        return _History(False, self._unclosed)

    def _stays(self, reply: str, with_opening: bool) -> bool:
        """Whether the template only appends to two replies of this spelling."""
        messages = [_user(_USER)]
        for word in _LATER_USERS:
            prompt = self._render(messages)
            messages += [self._as_message(reply, with_opening), _user(word)]
            following = self._render(messages)
            behind = following.removeprefix(prompt).lstrip()
            between = self._between([_user(word)]).lstrip()
            if not following.startswith(prompt) or not between.startswith(self._stop):
                return False
            if not behind.startswith(reply.strip()) or behind.removeprefix(reply.strip()).lstrip() != between:
                return False
        return True


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _common(one: list[int], other: list[int]) -> int:
    """Length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


class Conversation:
    """The token ids of one conversation, grown message by message.

    Args:
        chat: the chat template.
        append: True keeps every message. False starts anew with every message, whose text then carries its own
            history.
    """

    def __init__(self, chat: ChatFormat, *, append: bool) -> None:
        self._chat = chat
        self._append = append
        self._messages: list[Message] = []
        self._appends = False  # whether the template appends to the last reply
        self._ids: list[int] = []

    def say(self, message: str) -> tuple[np.ndarray, bool]:
        """Adds a user message and the opening of the reply.

        Returns:
            The new ids, int32 [context], and whether they follow the previous response (else they are a whole prompt).
        """
        said = self._chat.user_message(message)
        follows = self._append and self._appends
        self._messages = [*self._messages, said] if self._append else [said]
        if follows:
            new = self._chat.continuation([said], self._ids[-1])
            self._ids += new
        else:
            new = self._chat.prompt(self._messages)
            self._ids = list(new)
        return np.asarray(new, dtype=np.int32), follows

    def reply(self, response_ids: np.ndarray) -> None:
        """Adds the ids that the agent sampled."""
        self._ids += response_ids.tolist()
        if not self._append:
            return
        text = self._chat.decode_response(response_ids)
        self._messages.append(self._chat.assistant_message(text))
        self._appends = self._chat.appends(text)

    @property
    def token_ids(self) -> list[int]:
        """All ids so far: the prompt of the next response."""
        return self._ids
