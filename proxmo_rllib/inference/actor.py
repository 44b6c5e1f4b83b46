"""One engine in a Ray actor."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.inference.weights import manifest_of_blob
from proxmo_rllib.types import Completion, SamplingParams

SHARED_MEMORY = Path("/dev/shm")


class InferenceActor:
    """Serves one `Engine` to many callers at once; see `InferencePool` for how it is started."""

    def __init__(self, config: EngineConfig, rank: int, version: int = 0) -> None:
        """Loads the model; the actor answers when that is done.

        Args:
            config: which engine.
            rank: number of the engine in its pool; added to the seed, since equal seeds would give equal samples.
            version: version of the weights in the checkpoint.
        """
        # Before torch is imported: Ray presets it from the actor's num_cpus, which may be a fraction.
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        self._engine = build_engine(replace(config, seed=config.seed + rank), version)

    async def generate(self, prompt_ids: Sequence[int] | np.ndarray, params: SamplingParams) -> Completion:
        """See `Engine.generate`."""
        return await self._engine.generate(prompt_ids, params)

    async def generate_many(self, requests: Sequence[tuple[np.ndarray, SamplingParams]]) -> list[Completion]:
        """Several responses in one call; returns when the last is done."""
        return list(await asyncio.gather(*(self._engine.generate(ids, params) for ids, params in requests)))

    async def score(self, token_ids: Sequence[int] | np.ndarray, num_context: int) -> np.ndarray:
        """See `Engine.score`."""
        return await self._engine.score(token_ids, num_context)

    async def update_weights(self, blob: np.ndarray, version: int) -> int:
        """Loads what `weights.serialise` packed, uint8 [bytes]. Returns the version that the engine has afterwards."""
        manifest_of_blob(blob)
        # Engines read a file, because vLLM's worker is another process: in shared memory where there is one.
        folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        with tempfile.NamedTemporaryFile(prefix="proxmo_weights_", suffix=".safetensors", dir=folder) as file:
            await asyncio.to_thread(blob.tofile, file.name)
            await self._engine.load_weights(file.name, version)
        return self._engine.version

    async def version(self) -> int:
        """Version of the weights that the engine serves."""
        return self._engine.version

    async def check_health(self) -> int:
        """Raises EngineDeadError if the engine cannot serve any more. Returns the process id."""
        await self._engine.check_health()
        return os.getpid()

    async def close(self) -> None:
        """Ends the engine's processes."""
        self._engine.close()
