"""What is served and how, as the words for vLLM's server and the environment of its process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxmo_rllib.inference.support import is_cpu_wheel
from proxmo_rllib.machine.processors import available_cores
from proxmo_rllib.serving import access
from proxmo_rllib.serving.sizes import Sizes, prompt_tokens

#: By which a client asks for the policy, and for the model under an adapter.
POLICY, BASE = "policy", "base"


@dataclass(frozen=True, slots=True)
class Served:
    """A policy to serve.

    Attributes:
        folder: of the model.
        sizes: of the server.
        host: address to listen on.
        port: to listen on.
        template_kwargs: variables of the chat template with which the policy was trained.
        adapter: folder of an adapter of PEFT's, if one is served on top.
        adapter_rank: its rank.
        more: words for vLLM as they are.
    """

    folder: Path
    sizes: Sizes
    host: str
    port: int
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    adapter: Path | None = None
    adapter_rank: int = 0
    more: Sequence[str] = ()

    @property
    def url(self) -> str:
        """Where a client of OpenAI's API finds it, on this machine if it listens everywhere."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def words_for_vllm(served: Served) -> list[str]:
    """Those of its command line."""
    sizes = served.sizes
    settings: dict[str, Any] = {
        "model": served.folder,
        "host": served.host,
        "port": served.port,
        "served-model-name": POLICY if served.adapter is None else BASE,
        "dtype": sizes.dtype,
        "max-model-len": sizes.max_model_len,
        "max-num-seqs": sizes.max_num_seqs,
        "kv-cache-memory-bytes": sizes.cache_bytes,
        # As the policy was sampled while it learnt: the model's own top-p and penalties do not come in.
        "generation-config": "vllm",
        "logprobs-mode": "processed_logprobs",
        "middleware": f"{access.__name__}.{access.Gate.__name__}",
        "uvicorn-log-level": "warning",
        "disable-log-stats": True,
        "disable-fastapi-docs": True,
    }
    if sizes.gpu_share is not None:
        settings["gpu-memory-utilization"] = sizes.gpu_share
    if served.template_kwargs:
        settings["default-chat-template-kwargs"] = json.dumps(dict(served.template_kwargs))
    if served.adapter is not None:
        from proxmo_rllib.inference.support import lora_room

        settings |= {"enable-lora": True, "max-lora-rank": lora_room(served.adapter_rank)}
        settings["lora-modules"] = f"{POLICY}={served.adapter}"
    if is_cpu_wheel():
        settings |= {**_ON_CPU, "max-num-batched-tokens": prompt_tokens(sizes.max_model_len)}
    return [*_as_words(settings), *served.more]


# As `inference.vllm_internals.cpu_settings` has them, with the reasons.
_ON_CPU: Mapping[str, Any] = {"enforce-eager": True, "block-size": 32, "enable-chunked-prefill": False}


def environment_for_vllm(base: Mapping[str, str], key: str, scratch: Path) -> dict[str, str]:
    """The environment of the server's process.

    Args:
        base: of this process; what is set there stays.
        key: that clients have to send.
        scratch: for sockets and temporary files.
    """
    defaults = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if is_cpu_wheel():
        defaults |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1"}
        defaults["OMP_NUM_THREADS"] = str(available_cores())
    own = {access.KEY: key, "VLLM_RPC_BASE_PATH": str(scratch), "TMPDIR": str(scratch)}
    return defaults | dict(base) | own


def _as_words(settings: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", str(value)]
    return words
