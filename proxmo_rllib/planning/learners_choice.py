"""The micro-batch that a learner chooses by itself: its own rule (`learner/microbatch_size.py`), on a rehearsed pass.

The learner measures what the model keeps when it is loaded; here the same is counted without it.
"""

from __future__ import annotations

from dataclasses import replace

from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.planning.rehearsal import Arithmetic


def chosen_tokens(
    model: PlannedModel, arithmetic: Arithmetic, max_model_len: int, *, free_on_gpu: float | None, room_on_host: float
) -> int:
    """Tokens of the learner's micro-batches where the config sets none.

    Args:
        model: that it trains.
        arithmetic: how it computes.
        max_model_len: tokens of the longest sequence.
        free_on_gpu: bytes of its GPU beside the weights, gradient and moments taken off; None without one.
        room_on_host: bytes of its part of the machine's memory, weights, gradient and moments taken off.
    """
    from proxmo_rllib.learner import microbatch_size as rule
    from proxmo_rllib.learner.module import MAX_LOGITS

    def kept(length: int, checkpointing: bool) -> float:
        return model.rehearsal(replace(arithmetic, gradient_checkpointing=checkpointing)).kept_bytes(length)

    activations = rule.activations_by(
        kept,
        max_model_len,
        eager=model.rehearsal(arithmetic).eager,
        layers=model.shape.num_layers,
        checkpointing=arithmetic.gradient_checkpointing,
    )
    room = room_on_host if free_on_gpu is None else free_on_gpu
    # Of a machine of which nothing is known, no more is asked for than a learner may take.
    logits = min(rule.LARGEST * model.shape.vocab_size, MAX_LOGITS)
    room = min(room - rule.bytes_of_logits(logits), activations.of(2 * rule.LARGEST))
    return rule.power_of_two(activations.fitting(room))


def share_of_gpu() -> float:
    """Of what is free on a GPU, what a learner takes."""
    from proxmo_rllib.learner.microbatch_size import SHARE_OF_GPU

    return SHARE_OF_GPU


def share_of_machine() -> float:
    """Of a machine's memory, what all learners on it take, on a CPU."""
    from proxmo_rllib.learner.microbatch_size import SHARE_OF_MACHINE

    return SHARE_OF_MACHINE
