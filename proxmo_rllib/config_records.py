"""Settings that belong together, as small records: each is written as a word or a dictionary, and checked as a whole.

A config holds the word or the dictionary, which JSON, the command line and a sweep can write; `read_record` makes the
record of it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

Record = TypeVar("Record", bound="LoRA | Sharding | LearningRate")


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adapters in the place of whole weights (arXiv 2106.09685).

    Attributes:
        rank: of each adapter's two matrices.
        alpha: an adapter's output is scaled by alpha / rank.
        target_modules: names of the linear layers that have an adapter; "all-linear" for all but the LM head.
    """

    rank: int = 16
    alpha: float = 32.0
    target_modules: str | tuple[str, ...] = "all-linear"

    word: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not _is_whole(self.rank, 1):
            _refuse("rank", self.rank, "a whole number of at least 1")
        if not _is_number(self.alpha) or self.alpha <= 0:
            _refuse("alpha", self.alpha, "a finite number above 0")
        names = self.target_modules
        if isinstance(names, str):
            if names != "all-linear":
                _refuse("target_modules", names, "'all-linear' or a list of names of modules, such as ['q_proj']")
            return
        if not isinstance(names, (list, tuple)) or not names or not all(isinstance(n, str) and n for n in names):
            _refuse("target_modules", names, "'all-linear' or a list of names of modules, such as ['q_proj']")
        object.__setattr__(self, "target_modules", tuple(names))


@dataclass(frozen=True, slots=True)
class Sharding:
    """How several learners divide one model among them.

    Attributes:
        strategy: "fsdp2": each holds a share of every weight, gradient and optimizer state.
        cpu_offload: whether weights and optimizer state lie in host memory and visit the device a block at a time.
        reshard_after_forward: whether a block's whole weights are dropped between its forward and its backward pass;
            gathers them twice, and holds one block at a time.
    """

    strategy: str = "fsdp2"
    cpu_offload: bool = False
    reshard_after_forward: bool = True

    word: ClassVar[str | None] = "strategy"

    def __post_init__(self) -> None:
        if self.strategy != "fsdp2":
            _refuse("strategy", self.strategy, "'fsdp2'")
        for name in ("cpu_offload", "reshard_after_forward"):
            if not isinstance(getattr(self, name), bool):
                _refuse(name, getattr(self, name), "True or False")


@dataclass(frozen=True, slots=True)
class LearningRate:
    """How the learning rate changes over optimizer steps; `lr` is its peak.

    Attributes:
        decay: "constant", "cosine" or "linear", after the warm-up.
        warmup_steps: optimizer steps in which it rises from 0 to its peak, linearly.
        total_steps: optimizer steps at which it has decayed to `minimum`; needed unless it is constant.
        minimum: share of the peak that is left in the end.
    """

    decay: str = "constant"
    warmup_steps: int = 0
    total_steps: int | None = None
    minimum: float = 0.0

    word: ClassVar[str | None] = "decay"

    def __post_init__(self) -> None:
        if self.decay not in ("constant", "cosine", "linear"):
            _refuse("decay", self.decay, "'constant', 'cosine' or 'linear'")
        if not _is_whole(self.warmup_steps, 0):
            _refuse("warmup_steps", self.warmup_steps, "a whole number of at least 0")
        if not _is_number(self.minimum) or not 0 <= self.minimum <= 1:
            _refuse("minimum", self.minimum, "a share, from 0 to 1")
        if self.decay == "constant" and self.total_steps is None:
            return
        if not _is_whole(self.total_steps, self.warmup_steps + 1):
            _refuse("total_steps", self.total_steps, f"a whole number above warmup_steps={self.warmup_steps}")

    def factor(self, step: int) -> float:
        """Share of the peak at an optimizer step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        assert self.total_steps is not None
        done = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        shape = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.minimum + (1 - self.minimum) * shape


#: The settings that are records.
RECORDS: Mapping[str, type[LoRA | Sharding | LearningRate]] = {
    "lora": LoRA,
    "sharding": Sharding,
    "lr_schedule": LearningRate,
}


def read_record(kind: type[Record], key: str, value: Any) -> Record | None:
    """The record that a setting stands for, None for None.

    Args:
        kind: of the record.
        key: the setting.
        value: of the setting: a dictionary of entries, or a word where the record has a first one.

    Raises:
        ValueError: naming the entry, its value and what it may be.
    """
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, str) and kind.word is not None:
        value = {kind.word: value}
    names = [field.name for field in fields(kind)]
    if not isinstance(value, Mapping):
        word = "" if kind.word is None else f"a {kind.word}, "
        raise ValueError(f"{key}={value!r}: it is None, {word}or a dictionary with entries among {', '.join(names)}.")
    for name in value:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}."
            raise ValueError(f"{key}={value!r}: there is no entry {name!r}; {hint}")
    try:
        return kind(**value)
    except ValueError as error:
        raise ValueError(f"{key}={value!r}: {error}") from None


def _refuse(name: str, value: Any, says: str) -> None:
    raise ValueError(f"{name}={value!r} must be {says}.")


def _is_whole(value: Any, minimum: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= minimum


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
