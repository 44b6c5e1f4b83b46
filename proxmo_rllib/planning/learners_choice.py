"""The micro-batch that a learner chooses by itself: its own rule (`learner/microbatch_size.py`), on a rehearsed pass.

The learner measures what the model keeps when it is loaded; here the same is counted without it.
"""

from __future__ import annotations

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

    logits = rule._COPIES_OF_LOGITS * 4 * min(rule.LARGEST * model.shape.vocab_size, _most_logits())
    room = (room_on_host if free_on_gpu is None else free_on_gpu) - logits
    # Of a machine of which nothing is known, no more is asked for than a learner may take.
    fitting = int(min(rule.LARGEST, max(0.0, room) / _bytes_per_token(model, arithmetic, max_model_len)))
    return min(rule.LARGEST, max(rule.SMALLEST, 1 << max(0, fitting.bit_length() - 1)))


def share_of_gpu() -> float:
    """Of what is free on a GPU, what a learner takes."""
    from proxmo_rllib.learner import microbatch_size as rule

    return rule._SHARE_OF_GPU


def share_of_machine() -> float:
    """Of a machine's memory, what all learners on it take, on a CPU."""
    from proxmo_rllib.learner import microbatch_size as rule

    return rule._SHARE_OF_MACHINE


def _most_logits() -> int:
    from proxmo_rllib.learner import module

    return module._MAX_LOGITS


def _bytes_per_token(model: PlannedModel, arithmetic: Arithmetic, max_model_len: int) -> float:
    from proxmo_rllib.learner import microbatch_size as rule

    rehearsal = model.rehearsal(arithmetic)
    length = max_model_len if rehearsal.eager else min(max_model_len, rule._PROBE_TOKENS)
    kept = rehearsal.kept_bytes(length)
    if arithmetic.gradient_checkpointing:
        plain = Arithmetic(arithmetic.dtype, False, arithmetic.lora, arithmetic.sharded)
        kept += model.rehearsal(plain).kept_bytes(length) / model.shape.num_layers
    return rule._BACKWARD * kept / length
