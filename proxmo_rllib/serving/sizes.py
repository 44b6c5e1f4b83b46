"""How large vLLM is to make itself for a model on this machine.

Left alone vLLM takes a share of the machine or of the card, whatever the model: for a million weights as for a billion.
Here the cache of keys and values holds the requests that are to be answered at a time, or as many as there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxmo_rllib.machine.gpu_sharing import UTILISATION
from proxmo_rllib.planning.demand import Part
from proxmo_rllib.planning.engine_memory import cache_bytes_per_token, to_serve
from proxmo_rllib.planning.hardware import GIB
from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.planning.settings import PlannedSettings

#: Tokens of prompt and reply, where neither a checkpoint nor the user says a number and the model has as many.
DEFAULT_LENGTH = 4096
# vLLM gives a request its cache in blocks, and keeps one for itself; none is larger than this by default.
_BLOCK = 128
_PROMPT_TOKENS = 8192
# Of memory that is there, what others may come to take.
_LEFT_FOR_OTHERS = 0.1


class DoesNotFitError(ValueError):
    """There is no room for the model, or for one request to it."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where the server goes.

    Attributes:
        place: in words.
        free: bytes that are free there.
        card: bytes of the GPU; None on a CPU.
    """

    place: str
    free: float
    card: float | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """What vLLM is told.

    Attributes:
        dtype: of the weights.
        max_model_len: tokens of prompt and reply together.
        max_num_seqs: requests that are answered at a time; others wait.
        cache_bytes: of the cache of keys and values.
        gpu_share: of the card that all of it takes; None on a CPU.
        parts: what takes memory.
    """

    dtype: str
    max_model_len: int
    max_num_seqs: int
    cache_bytes: int
    gpu_share: float | None
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> float:
        """Of all parts."""
        return sum(part.bytes for part in self.parts)


def choose_sizes(model: PlannedModel, room: Room, *, dtype: str, max_model_len: int, max_num_seqs: int) -> Sizes:
    """The sizes with which a model is served.

    Args:
        model: which.
        room: where.
        dtype: of its weights.
        max_model_len: tokens of prompt and reply together.
        max_num_seqs: requests at a time.

    Raises:
        DoesNotFitError: not even one request does; says what would.
    """
    asked = _Need(model, room, dtype, max_model_len, max_num_seqs)
    if asked.left < asked.one:
        raise DoesNotFitError(_refusal(asked))
    cache = int(min(asked.left, asked.one * max_num_seqs))
    why = f"{cache / asked.one:.3g} requests of {max_model_len:,} tokens at a time"
    parts = (*asked.parts, Part("KV cache", cache, why))
    needed = sum(part.bytes for part in parts)
    share = None if room.card is None else min(UTILISATION, round(needed / room.card + 0.005, 2))
    return Sizes(dtype, max_model_len, max_num_seqs, cache, share, parts)


@dataclass(frozen=True, slots=True)
class _Need:
    """What is asked for, and what it takes."""

    model: PlannedModel
    room: Room
    dtype: str
    max_model_len: int
    max_num_seqs: int

    @property
    def settings(self) -> PlannedSettings:
        return PlannedSettings(
            dtype=self.dtype,
            num_gpus_per_engine=float(self.room.card is not None),
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            engine_kwargs={"max_num_batched_tokens": prompt_tokens(self.max_model_len)},
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        """All but the cache."""
        return to_serve(self.model, self.settings)

    @property
    def one(self) -> float:
        """Bytes of the cache for one request."""
        return cache_bytes_per_token(self.model, self.settings) * (self.max_model_len + 2 * _BLOCK)

    @property
    def most(self) -> float:
        """Bytes that may be taken."""
        free = self.room.free * (1 - _LEFT_FOR_OTHERS)
        return free if self.room.card is None else min(free, UTILISATION * self.room.card)

    @property
    def left(self) -> float:
        """Of them, for the cache."""
        return self.most - sum(part.bytes for part in self.parts)


def prompt_tokens(max_model_len: int) -> int:
    """Tokens of prompts in one forward pass: a prompt is taken whole."""
    return max(_PROMPT_TOKENS, max_model_len)


def _refusal(asked: _Need) -> str:
    room, parts = asked.room, asked.parts
    remedies = ["--dtype bfloat16 halves the weights"] if asked.dtype == "float32" else []
    shorter = replace(asked, max_model_len=asked.max_model_len // 2)
    while shorter.max_model_len >= _BLOCK:
        if shorter.left >= shorter.one:
            remedies.append(f"--max-model-len {shorter.max_model_len} fits")
            break
        shorter = replace(shorter, max_model_len=shorter.max_model_len // 2)
    remedies.append("end what else takes memory, or take a larger machine")
    in_words = ", ".join(f"{part.what} {part.bytes / GIB:.2f}" for part in parts)
    return (
        f"{asked.model.name} does not fit: vLLM takes {(asked.most - asked.left) / GIB:.2f} GiB ({in_words}) and "
        f"{asked.one / GIB:.2f} for the keys and values of one request of {asked.max_model_len:,} tokens; {room.place} "
        f"has {room.free / GIB:.2f} GiB free, of which {asked.most / GIB:.2f} are taken at most. Remedies: "
        f"{'; '.join(remedies)}."
    )
