"""What divided learners keep: checkpoints that any number of them reads, and copies of each one's share.

checkpoint/learner_group/shards/
    .metadata                    what lies where
    __0_0.distcp, __1_0.distcp   each learner's share, which it writes and reads itself
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from proxmo_rllib.learner.sharding import bring_to_rest, is_sharded, local

# Of the names in a checkpoint: weights/NAME, optimizer/KEY/NAME.
_WEIGHTS, _OPTIMIZER = "weights", "optimizer"


class ShardsError(ValueError):
    """What sharded learners wrote cannot be gone on from; says what, why, and the remedy."""


def _tensors(lm: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, shared ones once, and the buffers that belong to the state."""
    bring_to_rest(lm)
    kept = lm.state_dict().keys()
    named = dict(lm.named_parameters()) | {name: b for name, b in lm.named_buffers() if name in kept}
    return {name: tensor.detach() for name, tensor in named.items()}


def _moments(lm: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[tuple[str, str], torch.Tensor]:
    """The optimizer's tensors, by (key, name of the parameter)."""
    return {
        (key, name): value
        for name, parameter in lm.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def save_shards(lm: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Writes weights and optimizer state, every process its share. Called by all together.

    Args:
        lm: a divided model.
        optimizer: of its parameters.
        folder: that all processes see; made if it is not there.
    """
    state = {f"{_WEIGHTS}/{name}": tensor for name, tensor in _tensors(lm).items()}
    state |= {f"{_OPTIMIZER}/{key}/{name}": value for (key, name), value in _moments(lm, optimizer).items()}
    dcp.save(state, checkpoint_id=str(folder))


def load_shards(lm: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Reads what `save_shards` wrote, with as many processes or others, divided or not.

    Args:
        lm: a model, divided or whole.
        optimizer: of its parameters.
        folder: of the shards.

    Raises:
        ShardsError: it is of another model, or not whole.
    """
    there = _described(folder)
    weights = {f"{_WEIGHTS}/{name}": tensor for name, tensor in _tensors(lm).items()}
    _require_same_model(there, weights, type(lm).__name__.removeprefix("FSDP"), folder)
    optimizer.state.clear()
    parameters = dict(lm.named_parameters())
    moments: dict[str, torch.Tensor] = {}
    for name, size in there.items():
        part, _, rest = name.partition("/")
        key, _, of = rest.partition("/")
        if part == _OPTIMIZER:
            parameter = parameters[of]
            like = size == tuple(parameter.shape)
            moments[name] = torch.empty_like(parameter) if like else torch.empty(size, device=_step_device(optimizer))
            optimizer.state[parameter][key] = moments[name].detach()
    state = weights | {name: tensor.detach() for name, tensor in moments.items()}
    dcp.load(state, checkpoint_id=str(folder), no_dist=not is_sharded(lm))


def require_files(folder: Path) -> None:
    """Makes sure that all that learners wrote is where this process sees it.

    Raises:
        ShardsError: some of it is not.
    """
    described = (folder / ".metadata").is_file()
    storage = dcp.FileSystemReader(str(folder)).read_metadata().storage_data if described else {}
    missing = sorted({info.relative_path for info in (storage or {}).values()} - {f.name for f in folder.glob("*")})
    if missing or not described:
        raise ShardsError(
            f"{folder}: {missing[0] if described else '.metadata'} is not there, though a learner wrote it: on another "
            "node, it seems. Sharded learners on several nodes need a run folder that all of them see (NFS, say)."
        )


def _described(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in a checkpoint."""
    try:
        entries = dcp.FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # it unpickles a file
        raise ShardsError(
            f"{folder / '.metadata'} cannot be read ({type(error).__name__}: {error}). If learners run on several "
            "nodes, the checkpoint must lie where all of them see it; otherwise copy it again, or take an earlier one."
        ) from error
    return {name: tuple(entry.size) for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def _require_same_model(
    there: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor], model: str, folder: Path
) -> None:
    saved = {name: size for name, size in there.items() if name.startswith(f"{_WEIGHTS}/")}
    problems = [
        f"{name.removeprefix(f'{_WEIGHTS}/')} {_said(saved.get(name))} in it and {_said(wanted)} in {model}"
        for name, wanted in [(name, tuple(tensor.shape)) for name, tensor in weights.items()]
        + [(name, None) for name in saved if name not in weights]
        if saved.get(name) != wanted
    ]
    if problems:
        raise ShardsError(
            f"{folder} is of another model: {problems[0]} (and {len(problems) - 1} more). Go on with the model that "
            "the run was begun with, .policy(pretrained=...)."
        )


def _said(size: tuple[int, ...] | None) -> str:
    return "is not" if size is None else f"has shape {list(size)}"


def _step_device(optimizer: torch.optim.Optimizer) -> torch.device:
    """Where the optimizer counts its steps."""
    group = optimizer.param_groups[0]
    on_device = group.get("fused") or group.get("capturable")
    return local(group["params"][0]).device if on_device else torch.device("cpu")


def copy_share(lm: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """This process's share of weights and optimizer state, as arrays of its own."""

    def array(tensor: torch.Tensor) -> Any:
        return local(tensor.detach()).cpu().numpy().copy()

    return {
        "processes": dist.get_world_size(),
        "weights": {name: array(tensor) for name, tensor in _tensors(lm).items()},
        "optimizer": {name: array(value) for name, value in _moments(lm, optimizer).items()},
    }


@torch.no_grad()
def take_share(lm: torch.nn.Module, optimizer: torch.optim.Optimizer, share: Mapping[str, Any]) -> None:
    """Goes on from what `copy_share` made, in a process of the same rank among as many.

    Raises:
        ShardsError: it was made among another number.
    """
    if share["processes"] != dist.get_world_size():
        raise ShardsError(
            f"The copy of the learners' state is divided among {share['processes']}, and there are "
            f"{dist.get_world_size()} now. The run goes on from its last checkpoint with --resume."
        )
    for name, tensor in _tensors(lm).items():
        local(tensor).copy_(torch.from_numpy(share["weights"][name].copy()))
    parameters = dict(lm.named_parameters())
    optimizer.state.clear()
    for (key, name), array in share["optimizer"].items():
        parameter, values = parameters[name], torch.from_numpy(array.copy())
        if values.dim() == 0:
            optimizer.state[parameter][key] = values.to(_step_device(optimizer))
        else:
            optimizer.state[parameter][key] = torch.empty_like(parameter).detach()
            local(optimizer.state[parameter][key]).copy_(values)
