"""Building a model without weights, and filling it from its files a tensor at a time.

`from_pretrained` holds a whole model in every process. Here a process holds what it keeps, which may be a shard, and
one tensor of the file beside it:

    empty_causal_lm ──► parameters on "meta", buffers as they are computed ──► (sharded) ──► allocate ──► fill
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from proxmo_rllib.policies.checkpoint_names import LoadingStep, loading_steps
from proxmo_rllib.policies.loading import resolve_pretrained
from proxmo_rllib.policies.model_folder import ModelFolder, local_model, read_model_folder

# Of the safetensors layout.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class LoadingPlan:
    """What a model is to be filled from, and how. Made before it is divided: transformers goes by the model's class."""

    folder: ModelFolder
    steps: tuple[LoadingStep, ...]


def empty_causal_lm(pretrained: str | Path) -> tuple[Any, LoadingPlan]:
    """The model in float32, in evaluation mode, with parameters on the device "meta"; and how to fill it.

    Its buffers (rotary frequencies, scales) are computed as ever: no file holds all of them.

    Raises:
        ValueError: the folder is no whole model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = read_model_folder(local_model(resolve_pretrained(pretrained)))
    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
    with _parameters_on_meta():
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    lm.tie_weights()
    return lm.eval(), LoadingPlan(folder, tuple(loading_steps(folder.tensors, lm)))


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within it a module that is made has its parameters on "meta": each is let go of as soon as it is named."""
    register = torch.nn.Module.register_parameter

    def without_data(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = without_data  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


def allocate(lm: torch.nn.Module, parameters_on: torch.device, buffers_on: torch.device) -> None:
    """Gives the parameters on "meta" memory, not yet values; of those that are sharded, this process's part.

    Args:
        lm: its modules that share a parameter go on sharing it.
        parameters_on: device of the parameters.
        buffers_on: where the buffers go.
    """
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in lm.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter not in made:
                empty = torch.empty_like(parameter, device=parameters_on)
                made[parameter] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[parameter]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(buffers_on)


@torch.no_grad()
def fill(lm: Any, plan: LoadingPlan) -> None:
    """Reads every tensor of the model from its files; of a sharded one, only the rows that are this process's.

    Where transformers makes one tensor of several (the experts of a layer), those are read whole, a layer at a time.

    Args:
        lm: of `empty_causal_lm`, with memory for its parameters.
        plan: that came with it.

    Raises:
        ValueError: the files lack a tensor, or have it in another shape.
    """
    files = TensorFiles(plan.folder)
    targets: dict[str, torch.Tensor] = dict(lm.named_parameters(remove_duplicate=False))
    kept = lm.state_dict()
    targets |= {name: buffer for name, buffer in lm.named_buffers() if name in kept}
    filled: set[int] = set()
    for step in plan.steps:
        if step.is_plain:
            _copy_rows(targets[step.target], files, step.names[0])
            filled.add(id(targets[step.target]))
            continue
        made = step.convert(lm, [files.read(name).float() for name in step.names])
        for name, tensor in made.items():
            _copy(targets[name], tensor, f"{plan.folder.path}: {name}")
            filled.add(id(targets[name]))
    missing = [name for name, tensor in targets.items() if id(tensor) not in filled]
    if missing:
        raise ValueError(
            f"{plan.folder.path}: {missing[0]} is missing in its files (and {len(missing) - 1} more); download or save "
            "the model again."
        )


def _copy_rows(target: torch.Tensor, files: TensorFiles, name: str) -> None:
    """Copies a tensor of the files, of which no more is read than the target holds."""
    _require_shape(target, files.shape(name), f"{files.path(name)}: {name}")
    rows = local_rows(target)
    _local(target).copy_(files.read(name, rows))


def _copy(target: torch.Tensor, tensor: torch.Tensor, what: str) -> None:
    _require_shape(target, tensor.shape, what)
    rows = local_rows(target)
    _local(target).copy_(tensor if rows is None else tensor[rows])


def _require_shape(target: torch.Tensor, given: Sequence[int], what: str) -> None:
    if tuple(target.shape) != tuple(given):
        raise ValueError(
            f"{what} has shape {list(given)}, and by config.json it has {list(target.shape)}; the two are of "
            "different models."
        )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_rows(tensor: torch.Tensor) -> slice | None:
    """The rows of a sharded tensor that this process holds; None for all of a plain one."""
    if not isinstance(tensor, DTensor):
        return None
    chunk = math.ceil(tensor.shape[0] / tensor.device_mesh.size())  # as torch.chunk divides
    start = min(tensor.device_mesh.get_local_rank() * chunk, tensor.shape[0])
    rows = slice(start, min(start + chunk, tensor.shape[0]))
    held = tensor.to_local().shape[0]
    if rows.stop - rows.start != held:
        raise RuntimeError(f"{tensor.shape[0]} rows over {tensor.device_mesh.size()}: {rows} and {held} rows held.")
    return rows


@dataclass(frozen=True, slots=True)
class _Entry:
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # byte in the file


class TensorFiles:
    """Reads single tensors, or rows of them, of a model's safetensors files, and maps none of them into memory."""

    def __init__(self, folder: ModelFolder) -> None:
        """Reads the headers of a folder that `read_model_folder` found whole."""
        self._entries: dict[str, _Entry] = {}
        for file in folder.files:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                header = json.loads(opened.read(length))
            for name, entry in header.items():
                if name in folder.tensors and entry["dtype"] in _DTYPES:
                    start = 8 + length + entry["data_offsets"][0]
                    self._entries[name] = _Entry(file, _DTYPES[entry["dtype"]], tuple(entry["shape"]), start)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a whole tensor."""
        return self._entry(name).shape

    def path(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._entry(name).file

    def read(self, name: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor as the file has it, on the CPU.

        Args:
            name: in the checkpoint.
            rows: of its first dimension; None for all.
        """
        entry = self._entry(name)
        start, shape = entry.start, entry.shape
        if rows is not None:
            width = math.prod(shape[1:])
            start, shape = start + rows.start * width * entry.dtype.itemsize, (rows.stop - rows.start, *shape[1:])
        tensor = torch.empty(shape, dtype=entry.dtype)
        if tensor.numel():
            with entry.file.open("rb") as opened:
                opened.seek(start)
                if opened.readinto(tensor.reshape(-1).view(torch.uint8).numpy()) != tensor.nbytes:  # type: ignore[arg-type]
                    raise ValueError(f"{entry.file} is cut short within {name}; download or save the model again.")
        return tensor

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise ValueError(f"{name} is in no safetensors file of the model, or in a type that cannot be trained.")
        return self._entries[name]
