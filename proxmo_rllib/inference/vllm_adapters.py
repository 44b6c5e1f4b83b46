"""Adapters that a vLLM engine serves: each version is an adapter of its own to vLLM, and no name comes twice.

    use ──► the newest (request object, version), taken together ─► vLLM.generate ─► the completion has that version
    load ─► drain and remove all but the newest ─► add under a new id, name and path ─► compare modules ─► the newest

A request ends under the adapter that it began with, and says so; the next one takes the newest. There is no moment at
which one of the two is new and the other old. vLLM's prefix cache keeps what it computed apart by name and path: a name
that came twice (a run that went back to its checkpoint makes version 7 anew) would find the other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.inference import vllm_internals as internals
from proxmo_rllib.inference.support import lora_room
from proxmo_rllib.inference.weights import WeightsMismatchError, manifest_of_file
from proxmo_rllib.policies.adapters import ADAPTER_WEIGHTS, last_names, layer_of, write_adapter_config

# The newest, and the one before it, under which requests may still run.
_HELD = 2


@dataclass(slots=True)
class Served:
    """An adapter that vLLM holds.

    Attributes:
        version: of its weights: optimizer steps behind them.
        request: what a request of vLLM's carries to be computed with it; None for the base alone.
        running: requests under it.
    """

    version: int
    request: Any
    running: int = 0


class AdapterVersions:
    """Holds the newest adapter, and those before it while requests run under them. Used on one event loop.

    Args:
        llm: vLLM's AsyncLLM, started with `engine_arguments`.
        lora: the setting.
        base: folder of the model that the adapters belong to.
        version: of the base alone, which is served until the first adapter comes.
    """

    def __init__(self, llm: Any, lora: LoRA, base: str, version: int) -> None:
        self._llm = llm
        self._lora = lora
        self._base = base
        self._numbers = itertools.count(1)
        self._newest = Served(version, None)
        self._before: list[Served] = []
        self._ended = asyncio.Event()

    @staticmethod
    def engine_arguments(lora: LoRA, layers: list[str], max_model_len: int) -> dict[str, Any]:
        """Of vLLM's AsyncEngineArgs.

        Args:
            lora: the setting.
            layers: names of the layers with an adapter, by which vLLM leaves the others, the LM head above all, alone.
            max_model_len: tokens of the longest sequence.
        """
        # On a CPU it copies an adapter's second matrix for every token of a batch.
        batch = {"max_num_batched_tokens": max(1024, max_model_len)} if internals.platform_is_cpu() else {}
        return {
            "enable_lora": True,
            "max_lora_rank": lora_room(lora.rank),
            "max_loras": _HELD,
            "max_cpu_loras": _HELD,
            "lora_target_modules": last_names(layers),
            **batch,
        }

    @contextlib.contextmanager
    def use(self) -> Iterator[Served]:
        """The newest adapter, for one request from its beginning to its end."""
        served = self._newest
        served.running += 1
        try:
            yield served
        finally:
            served.running -= 1
            self._ended.set()

    async def load(self, path: str | Path, version: int) -> None:
        """Serves the adapters of a file to all requests from now on. Waits for requests that are two versions old.

        Args:
            path: a safetensors file under PEFT's names, which have been compared.
            version: of the weights.

        Raises:
            WeightsMismatchError: vLLM does not take them; the newest ones serve on.
        """
        await self._remove_old(wait=True)
        number = next(self._numbers)
        # Beside the file, where there is room. It goes as soon as vLLM has read it: the adapter stays in its memory.
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="adapter_", dir=Path(path).parent))
        try:
            await asyncio.to_thread(self._lay_out, folder, path)
            request = await self._add(number, f"version-{version}-load-{number}", folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)
        self._before.append(self._newest)
        self._newest = Served(version, request)
        await self._remove_old(wait=False)

    def _lay_out(self, folder: Path, path: str | Path) -> None:
        """Makes of a file the folder that vLLM reads."""
        (folder / ADAPTER_WEIGHTS).symlink_to(Path(path).resolve())
        write_adapter_config(folder, self._lora, manifest_of_file(path), self._base)

    async def _add(self, number: int, name: str, folder: Path) -> Any:
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError as VLLMDeadError

        request = LoRARequest(name, number, str(folder))
        layers = sorted({layer_of(tensor) for tensor in manifest_of_file(folder / ADAPTER_WEIGHTS)})
        try:
            await self._llm.add_lora(request)
            unused = await self._llm.collective_rpc("proxmo_unused_adapters", args=(number,))
        except VLLMDeadError:
            raise
        except Exception as error:
            raise WeightsMismatchError(self._refusal(name, layers, str(error))) from error
        # vLLM passes over what it finds no place for; each of its workers says what that is.
        if left := sorted(set().union(*unused)):
            await self._llm.remove_lora(number)
            raise WeightsMismatchError(self._refusal(name, layers, f"it has no place for {left[0]}"))
        return request

    def _refusal(self, name: str, layers: list[str], reason: str) -> str:
        return (
            f"vLLM does not take the adapters of {name}, at {', '.join(last_names(layers))}: "
            f"{' '.join(reason.split())}. Leave those out of lora's target_modules, or set engine='transformers'."
        )

    async def _remove_old(self, *, wait: bool) -> None:
        """Removes what no request runs under.

        Args:
            wait: until that holds for all but the newest.
        """
        while True:
            self._ended.clear()
            for served in [served for served in self._before if not served.running]:
                self._before.remove(served)
                if served.request is not None:
                    await self._llm.remove_lora(served.request.lora_int_id)
            if not (wait and self._before):
                return
            await self._ended.wait()
