"""How large vLLM is to make itself for a model on this machine.

Left alone vLLM takes a share of the machine or of the card, whatever the model: for a million weights as for a billion.
Here the cache of keys and values holds the requests that are to be answered at a time, or as many as there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    settings = PlannedSettings(
        dtype=dtype,
        num_gpus_per_engine=float(room.card is not None),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        engine_kwargs={"max_num_batched_tokens": max(8192, max_model_len)},
    )
    others = to_serve(model, settings)
    token = cache_bytes_per_token(model, settings)
    one = token * (max_model_len + 2 * _BLOCK)
    free = room.free * (1 - _LEFT_FOR_OTHERS)
    if room.card is not None:
        free = min(free, UTILISATION * room.card)
    left = free - sum(part.bytes for part in others)
    if left < one:
        raise DoesNotFitError(_refusal(model, room, free, others, settings, one))
    cache = int(min(left, one * max_num_seqs))
    parts = (*others, Part("KV cache", cache, f"{cache / one:.3g} requests of {max_model_len:,} tokens at a time"))
    needed = sum(part.bytes for part in parts)
    share = None if room.card is None else min(UTILISATION, round(needed / room.card + 0.005, 2))
    return Sizes(dtype, max_model_len, max_num_seqs, cache, share, parts)


def _refusal(
    model: PlannedModel, room: Room, free: float, others: tuple[Part, ...], settings: PlannedSettings, one: float
) -> str:
    parts = ", ".join(f"{part.what} {part.bytes / GIB:.2f}" for part in others)
    needed = sum(part.bytes for part in others)
    remedies = []
    if settings.dtype == "float32":
        remedies.append("--dtype bfloat16 halves the weights")
    fitting = int((free - needed) / cache_bytes_per_token(model, settings)) - 2 * _BLOCK
    if fitting >= _BLOCK:
        remedies.append(f"--max-model-len {fitting // _BLOCK * _BLOCK} fits")
    remedies.append("end what else takes memory, or take a larger machine")
    return (
        f"{model.name} does not fit: vLLM takes {needed / GIB:.2f} GiB ({parts}) and {one / GIB:.2f} GiB for the keys and "
        f"values of one request of {settings.max_model_len:,} tokens; {room.place} has {room.free / GIB:.2f} GiB free, "
        f"of which {free / GIB:.2f} are taken at most. {'; '.join(remedies).capitalize()}."
    )
