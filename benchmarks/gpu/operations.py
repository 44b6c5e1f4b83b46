"""The floating-point operations that an optimizer step needs, whatever a program makes of them.

A weight takes 2 operations a token that it computes in the forward pass, 2 for the gradient of what went into it, and 2
for its own gradient. Each pair of a token and one that it sees takes 4 operations a unit of width in every layer's
attention (the score, and its part of the sum), and twice that in the backward pass:

    all weights    6 N T + 6 H S + 12 L W A
    adapters       4 N T + 4 H S + 12 L W A + 6 R T      (frozen weights have no gradient of their own)

N weights of the layers, H of the head, R of the adapters, L layers, W width of all heads together; T tokens, S of them
in the loss (logits are made for these alone), A pairs. Padding is not counted, what several rows share once where it is
computed once, and what is computed a second time by gradient checkpointing once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxmo_rllib.learner.packing import Packed
from proxmo_rllib.planning.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class Work:
    """What a step computes.

    Attributes:
        tokens: without padding; of packed rows a shared beginning once.
        sampled: those in the loss.
        pairs: of a token and one that it attends to, itself included.
    """

    tokens: int
    sampled: int
    pairs: int


def work_of_rows(lengths: Iterable[int], sampled: int) -> Work:
    """Of rows that are computed one by one, or padded."""
    sizes = list(lengths)
    return Work(sum(sizes), sampled, sum(size * (size + 1) // 2 for size in sizes))


def work_of_packed(parts: Iterable[Packed], sampled: int) -> Work:
    """Of packed micro-batches."""
    spans = [span for part in parts for span in part.spans]
    sizes = [(span.stop - span.start, span.num_context) for span in spans]
    return Work(sum(n for n, _ in sizes), sampled, sum(n * before + n * (n + 1) // 2 for n, before in sizes))


def operations(shape: ModelShape, work: Work, num_adapter_weights: int | None = None) -> float:
    """Floating-point operations of one optimizer step.

    Args:
        shape: of the model.
        work: of the step.
        num_adapter_weights: None where all weights are trained.
    """
    layers = shape.num_active - shape.num_embedding
    attention = 12.0 * shape.num_layers * shape.attention_width * work.pairs
    passes = 6 if num_adapter_weights is None else 4
    products = passes * (layers * work.tokens + shape.head_weights * work.sampled)
    return products + attention + 6.0 * (num_adapter_weights or 0) * work.tokens
