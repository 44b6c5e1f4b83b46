"""Memory of an engine: weights in its type, the cache of keys and values, and what a forward pass takes.

On a GPU vLLM takes a share of the card (`gpu_memory_utilization`), and what weights and a pass leave of it is cache; an
engine that sleeps (`enable_sleep_mode`) keeps its context and graphs there, and its weights are in host memory. On
a CPU the cache has a size of its own, of which is taken what is used.
"""

from __future__ import annotations

from proxmo_rllib.machine.gpu_sharing import CONTEXT, GRAPHS, vllm_utilisation
from proxmo_rllib.planning.demand import Demand, Part
from proxmo_rllib.planning.hardware import GIB, Hardware
from proxmo_rllib.planning.learner_memory import WIDTHS
from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.planning.settings import PlannedSettings

MIB = 2**20
# vLLM's processes on a CPU before they have a model: the actor, and EngineCore. Measured.
_VLLM_PROCESSES = 1560 * MIB
# One of several processes that divide a model, before it has its part; and what EngineCore has less then. Measured.
_VLLM_WORKER, _VLLM_WITHOUT_MODEL = 1040 * MIB, 560 * MIB
# One process with PyTorch, transformers and Ray. Measured.
_PROCESS = 640 * MIB
_CPU_CACHE = 512 * MIB  # as the engine asks for
_HOST_CONTEXT = 2.0 * GIB  # assumed, since nothing here has run on a GPU
_PROMPT_TOKENS = 8192  # in one forward pass
# Copies of the logits of a step: as computed, in float32, log-softmax.
_COPIES_OF_LOGITS = 3


def cache_bytes_per_token(model: PlannedModel, settings: PlannedSettings) -> float:
    """Bytes that one token takes in the cache."""
    return WIDTHS[settings.dtype] * model.shape.cached_values


def cached_sequences(model: PlannedModel, settings: PlannedSettings, hardware: Hardware) -> float:
    """Sequences of `max_model_len` tokens that an engine's cache holds; below 1 it serves none of them."""
    sequence = settings.max_model_len * cache_bytes_per_token(model, settings)
    if settings.engine == "transformers":
        return settings.max_num_seqs
    split = _split_of_cache(model, settings)
    if settings.num_gpus_per_engine == 0:
        return split * float(settings.engine_kwargs.get("kv_cache_memory_bytes") or _CPU_CACHE) / sequence
    return split * _left_for_cache(model, settings, hardware) / sequence


def engine_memory(model: PlannedModel, settings: PlannedSettings, hardware: Hardware) -> tuple[Demand, ...]:
    """What one engine takes of each of its GPUs, if it has one, and of host memory."""
    if settings.engine == "transformers":
        return _transformers(model, settings, hardware)
    if settings.num_gpus_per_engine == 0:
        return (Demand("engine", settings.num_engines, "host", _on_cpu(model, settings), None),)
    sequence = settings.max_model_len * cache_bytes_per_token(model, settings) / _split_of_cache(model, settings)
    left = _left_for_cache(model, settings, hardware)
    held = cached_sequences(model, settings, hardware)
    why = f"{held:.0f} sequences of {settings.max_model_len:,} tokens"
    cache = Part(
        "KV cache", max(sequence, left), why if left >= sequence else "one sequence, and there is no room for it"
    )
    contexts = settings.tensor_parallel_size * _HOST_CONTEXT
    host = (
        Part("processes", _VLLM_PROCESSES + contexts, "measured, and assumed of CUDA"),
        *_workers(settings),
        *_asleep(model, settings),
    )
    return (
        Demand(
            "engine",
            settings.num_engines,
            "GPU",
            (*_before_cache(model, settings), cache),
            _share(settings, hardware),
            "while it plays" * settings.enable_sleep_mode,
        ),
        Demand("engine", settings.num_engines, "host", host, None),
    )


def to_serve(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    """What vLLM takes beside its cache where its weights stay: of its GPU, or of host memory without one."""
    if settings.num_gpus_per_engine:
        return _before_cache(model, settings)
    return (*_held_on_cpu(model, settings), Part("a forward pass", _forward(model, settings), "of prompts, and logits"))


def utilisation(settings: PlannedSettings) -> float:
    """Share of a card that vLLM takes."""
    given = settings.engine_kwargs.get("gpu_memory_utilization")
    return float(given or vllm_utilisation(settings.num_gpus_per_engine))


def _share(settings: PlannedSettings, hardware: Hardware) -> float:
    return utilisation(settings) * hardware.gpu_bytes


def _split_of_cache(model: PlannedModel, settings: PlannedSettings) -> int:
    """Processes among which an engine divides the cache: where a model has fewer heads, some hold the same."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", None)
    return min(settings.tensor_parallel_size, heads or settings.tensor_parallel_size)


def _asleep(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    """What an engine brings to host memory while a learner has its GPU."""
    bytes_ = WIDTHS[settings.dtype] * model.shape.num_weights
    return (Part("weights asleep", bytes_, f"{settings.dtype}, while the learner learns"),) * settings.enable_sleep_mode


def _workers(settings: PlannedSettings) -> tuple[Part, ...]:
    """Processes that compute for vLLM's EngineCore, where it divides the model."""
    parts = settings.tensor_parallel_size
    bytes_ = parts * _VLLM_WORKER - _VLLM_WITHOUT_MODEL
    return (Part("workers", bytes_, f"{parts} of them, measured"),) if parts > 1 else ()


def _left_for_cache(model: PlannedModel, settings: PlannedSettings, hardware: Hardware) -> float:
    return _share(settings, hardware) - sum(part.bytes for part in _before_cache(model, settings))


def _before_cache(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    split = settings.tensor_parallel_size
    each = "" if split == 1 else f", a share of {split}"
    graphs = 0.0 if settings.engine_kwargs.get("enforce_eager") else GRAPHS
    return (
        Part("context, graphs", CONTEXT + graphs, "assumed"),
        Part("weights", WIDTHS[settings.dtype] * model.shape.num_weights / split, f"{settings.dtype}{each}"),
        *_adapters(model, settings),
        Part("a forward pass", _forward(model, settings) / split, "of prompts, and logits"),
    )


def _adapters(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    if settings.adapters is None:
        return ()
    # Those of the newest version, and of the one before, which requests in flight may still ask for.
    weights = 2 * model.adapter_weights(settings.adapters)
    return (Part("adapters", WIDTHS[settings.dtype] * weights, "of two versions"),)


def _forward(model: PlannedModel, settings: PlannedSettings) -> float:
    shape, width = model.shape, WIDTHS[settings.dtype]
    tokens = max(int(settings.engine_kwargs.get("max_num_batched_tokens") or _PROMPT_TOKENS), settings.max_num_seqs)
    # Gate, up and their product; residual, norm, queries, keys and values, attention's output.
    activations = tokens * width * (3 * shape.widest + 2 * shape.hidden_size + 4 * shape.attention_width)
    return activations + _COPIES_OF_LOGITS * 4 * settings.max_num_seqs * shape.vocab_size


def _used_cache(model: PlannedModel, settings: PlannedSettings) -> float:
    return settings.max_num_seqs * settings.max_model_len * cache_bytes_per_token(model, settings)


def _held_on_cpu(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    shape, width = model.shape, WIDTHS[settings.dtype]
    return (
        Part("processes", _VLLM_PROCESSES, "measured"),
        *_workers(settings),
        Part("weights", width * (shape.num_weights + shape.head_weights), f"{settings.dtype}, and the head once more"),
        *_adapters(model, settings),
    )


def _on_cpu(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    cache = float(settings.engine_kwargs.get("kv_cache_memory_bytes") or _CPU_CACHE)
    cache *= _split_of_cache(model, settings)
    held = cache / (settings.max_model_len * cache_bytes_per_token(model, settings))
    return (
        *_held_on_cpu(model, settings),
        *_taken(model, settings),
        Part(
            "KV cache",
            min(cache, _used_cache(model, settings)),
            f"holds {held:.0f} sequences of {settings.max_model_len:,} tokens",
        ),
        Part("a forward pass", _forward(model, settings), "of prompts, and logits"),
    )


def _taken(model: PlannedModel, settings: PlannedSettings) -> tuple[Part, ...]:
    """New weights while they are read from their file, which lies in memory; those of adapters are small."""
    bytes_ = WIDTHS[settings.dtype] * model.shape.num_weights
    return (
        (Part("new weights", bytes_, f"{settings.dtype}, while they are taken"),) if settings.adapters is None else ()
    )


def _transformers(model: PlannedModel, settings: PlannedSettings, hardware: Hardware) -> tuple[Demand, ...]:
    on_gpu = settings.num_gpus_per_engine > 0
    weights = WIDTHS[settings.dtype] * model.shape.num_weights
    first = Part("context", CONTEXT, "assumed") if on_gpu else Part("process", _PROCESS, "measured")
    parts = (
        first,
        Part("weights", weights, settings.dtype),
        Part("new weights", weights, "beside the old ones while they are loaded"),
        Part("keys and values", _used_cache(model, settings), f"{settings.max_num_seqs} sequences"),
        Part("a forward pass", _forward(model, settings), "of prompts, and logits"),
    )
    if not on_gpu:
        return (Demand("engine", settings.num_engines, "host", parts, None),)
    has = min(1.0, settings.num_gpus_per_engine) * hardware.gpu_bytes
    host = (
        Part("process", _PROCESS + _HOST_CONTEXT, "measured, and assumed of CUDA"),
        *_asleep(model, settings),
    )
    return (
        Demand("engine", settings.num_engines, "GPU", parts, has, "while it plays" * settings.enable_sleep_mode),
        Demand("engine", settings.num_engines, "host", host, None),
    )
