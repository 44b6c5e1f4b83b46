"""How long an iteration may take: operations by speed, bytes by bandwidth. An estimate that prints what it assumes.

Rollouts decode a token of every episode a step, and a step reads the weights and the cache once. The learner computes
each token twice forward and four times backward for every weight that computes it (2 and 4 operations a weight), a
third more where activations are computed again. What environments take is not known, and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxmo_rllib.planning.engine_memory import cache_bytes_per_token, cached_sequences
from proxmo_rllib.planning.hardware import Hardware, Speed
from proxmo_rllib.planning.learner_memory import WIDTHS
from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.planning.settings import PlannedSettings

# Through a file and Ray's object store, both ways: seen with 135 million weights.
_TRANSFER = 0.25e9


@dataclass(frozen=True, slots=True)
class Play:
    """What is taken of an iteration's episodes.

    Attributes:
        turns: of an episode.
        response_tokens: sampled in a turn.
        sequence_tokens: of a sequence that is trained on: a conversation, or a turn of a window.
        at_limits: whether these are the limits that the settings say, and not the user's own.
    """

    turns: int
    response_tokens: int
    sequence_tokens: int
    at_limits: bool

    @classmethod
    def at_limits_of(cls, settings: PlannedSettings) -> Play:
        """Every episode as long as the settings let it be."""
        turns, response = settings.max_turns, settings.max_response_tokens
        if settings.context == "append":
            # A conversation that outgrows the model's length ends there: at most half of it was said by the agent.
            turns = max(1, min(turns, settings.max_model_len // (2 * response)))
        return cls(turns, response, settings.max_model_len, at_limits=True)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of an iteration's phases, and what they were reckoned from."""

    rollouts: float
    learning: float
    transfer: float
    sampled_tokens: int
    trained_tokens: int
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the iteration."""
        return self.rollouts + self.learning + self.transfer


def duration_of(model: PlannedModel, settings: PlannedSettings, hardware: Hardware, play: Play) -> Duration:
    """The time of an iteration without its environments and its evaluation."""
    episodes = settings.group_size * settings.num_groups
    sequences = episodes * (1 if settings.context == "append" else play.turns)
    trained = sequences * play.sequence_tokens
    sampled = episodes * play.turns * play.response_tokens
    engine = hardware.card if settings.num_gpus_per_engine else hardware.host
    learner = hardware.card if settings.num_gpus_per_learner else hardware.host
    width = WIDTHS[settings.dtype]
    transferred = width * model.shape.num_weights
    if settings.adapters is not None:
        transferred = 4 * model.adapter_weights(settings.adapters)
    learners = settings.learners if settings.num_gpus_per_learner else 1  # on one processor they take turns
    learning = trained * operations_per_token(model, settings, play.sequence_tokens)
    learning /= learner.utilisation * learner.flops[settings.dtype] * learners
    assumptions = [
        f"{episodes} episodes of {play.turns} turns, {play.response_tokens} tokens sampled in each, "
        f"{play.sequence_tokens:,} tokens in a sequence"
        + (
            "; these are the limits, real episodes are shorter (--turns, --response-tokens, --sequence-tokens)"
            * play.at_limits
        ),
        f"engine: {_in_words(engine, settings.dtype)}",
        f"learner: {_in_words(learner, settings.dtype)}, {learner.utilisation:.0%} of it reached (assumed)",
        f"transfer: {_TRANSFER / 1e9:g} GB/s; environments and evaluation are left out",
    ]
    return Duration(
        rollouts=_rollouts(model, settings, hardware, play, engine, episodes),
        learning=learning,
        transfer=transferred / _TRANSFER,
        sampled_tokens=sampled,
        trained_tokens=trained,
        assumptions=tuple(assumptions),
    )


def operations_per_token(model: PlannedModel, settings: PlannedSettings, sequence_tokens: int) -> float:
    """Floating-point operations that the learner spends on one token of an iteration."""
    forward = forward_operations(model, sequence_tokens)
    # Forward, gradient of the activations, gradient of the weights: frozen ones have none.
    passes = 3.0 if settings.adapters is None else 2.0
    if settings.gradient_checkpointing:
        passes += 1
    once = (settings.kl_coef > 0) + (settings.old_logprobs == "learner")
    return forward * (passes * settings.num_epochs + once)


def forward_operations(model: PlannedModel, sequence_tokens: int) -> float:
    """Of one forward pass, for one token."""
    shape = model.shape
    computing = shape.num_active - shape.num_embedding + shape.head_weights
    # Under a causal mask a token looks at half of the sequence: scores, and the sum of values.
    attention = 4 * shape.num_layers * shape.attention_width * sequence_tokens / 2
    return 2 * computing + attention


def _rollouts(
    model: PlannedModel, settings: PlannedSettings, hardware: Hardware, play: Play, engine: Speed, episodes: int
) -> float:
    mine = -(-episodes // settings.num_engines)
    together = max(1, min(mine, settings.max_num_seqs, int(cached_sequences(model, settings, hardware))))
    width = WIDTHS[settings.dtype]
    # Of a model that several GPUs divide each reads and computes its part; on processors they take turns.
    parts = settings.tensor_parallel_size if settings.num_gpus_per_engine else 1
    speed = parts * engine.utilisation * engine.flops[settings.dtype]
    cache = cache_bytes_per_token(model, settings) * play.sequence_tokens / 2
    operations = 2 * model.shape.num_active * together / speed
    read = (width * model.shape.num_weights + together * cache) / (parts * engine.bandwidth)
    steps = -(-mine // together) * play.turns * play.response_tokens
    # Prompts: each token once with an append-only context, whose prefix is cached; every turn's with a window.
    prompts = mine * play.sequence_tokens * (1 if settings.context == "append" else play.turns)
    prefill = prompts * forward_operations(model, play.sequence_tokens) / speed
    return steps * (engine.step_s + max(read, operations)) + prefill


def _in_words(speed: Speed, dtype: str) -> str:
    source = "measured now" if speed.measured else "data sheet"
    peaks = f"{speed.flops[dtype] / 1e12:.3g} TFLOP/s in {dtype}, {speed.bandwidth / 1e9:,.0f} GB/s"
    return f"{speed.name}, {peaks} ({source}), {1000 * speed.step_s:g} ms a decoding step beside it (assumed)"
