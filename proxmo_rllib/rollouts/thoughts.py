"""How families of models mark what they think before they answer, and one spelling of it for the action parser."""

from __future__ import annotations

from dataclasses import dataclass

# The parser's spelling.
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class ThoughtFormat:
    """The marks around a thought.

    Attributes:
        opening: begins a thought.
        closing: ends it.
        between: what follows a thought before the answer's own opening.
        answer_opening: without it there is no answer; empty where all that is no thought is one.
        in_fields: the chat template takes thought and answer as two fields of a message.
    """

    opening: str
    closing: str
    between: str = ""
    answer_opening: str = ""
    in_fields: bool = False

    def split(self, reply: str) -> tuple[str | None, str | None]:
        """Thought and answer; None for what the reply does not hold, or does not end."""
        thought, rest = None, reply
        start = reply.find(self.opening)
        if start >= 0:
            thought, closed, rest = reply[start + len(self.opening) :].partition(self.closing)
            if not closed:
                return thought, None
        if self.answer_opening:
            _, found, rest = rest.rpartition(self.answer_opening)
            if not found:
                return thought, None
        return thought, rest

    def join(self, thought: str | None, answer: str) -> str:
        """The reply that says both."""
        said = "" if thought is None else f"{self.opening}{thought}{self.closing}{self.between}"
        return f"{said}{self.answer_opening}{answer}"

    def spelt_out(self, reply: str) -> str:
        """The reply with its thought between `<think>` and `</think>`, as `parse_action` reads it.

        A reply that was cut off before its answer is all thought.
        """
        if self == THINK:
            return reply
        thought, answer = self.split(reply)
        if answer is None:
            return _OPEN + (reply if thought is None else thought)
        return answer if thought is None else f"{_OPEN}{thought}{_CLOSE}{answer}"


THINK = ThoughtFormat(_OPEN, _CLOSE)
#: gpt-oss: channels. What is said in the final one is the answer.
HARMONY = ThoughtFormat(
    opening="<|channel|>analysis<|message|>",
    closing="<|end|>",
    between="<|start|>assistant",
    answer_opening="<|channel|>final<|message|>",
    in_fields=True,
)
GEMMA = ThoughtFormat("<|channel>thought\n", "<channel|>")
MISTRAL = ThoughtFormat("[THINK]", "[/THINK]")


def thought_format(template: str) -> ThoughtFormat:
    """The marks that a chat template (its source) speaks of."""
    if "<|channel|>" in template and "<|return|>" in template:
        return HARMONY
    if GEMMA.closing in template:
        return GEMMA
    return MISTRAL if MISTRAL.opening in template else THINK
