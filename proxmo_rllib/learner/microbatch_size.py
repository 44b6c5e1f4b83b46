"""How many tokens fit one forward and backward pass: measured on the model, against the memory that there is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from proxmo_rllib.learner.sharding import bring_to_rest, gathered_bytes, local

if TYPE_CHECKING:
    from proxmo_rllib.learner.module import CausalLMModule

logger = logging.getLogger(__name__)

LARGEST, SMALLEST = 16384, 256
# Of a machine's memory, on a CPU, for all learners on it; engines, environments and Ray's objects have the rest.
_SHARE_OF_MACHINE = 0.4
# Of what is free on a GPU: the allocator needs some room between its blocks.
_SHARE_OF_GPU = 0.85
# The backward pass needs gradients of activations beside the activations themselves.
_BACKWARD = 1.5
# Copies of the logits that are in memory at once: in the arithmetic's type, float32, log-softmax, their gradient.
_COPIES_OF_LOGITS = 4
_PROBE_TOKENS = 256
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def choose_tokens_per_microbatch(module: CausalLMModule, max_model_len: int, num_learners: int) -> int:
    """Padded tokens of a micro-batch that fit the device, a power of two between 256 and 16,384.

    On a CPU it depends on the size of the machine and not on what happens to be free, so that a resumed run chooses the
    same.

    Args:
        module: the policy, on its device.
        max_model_len: tokens of the longest sequence.
        num_learners: learners that may share a machine.
    """
    per_token = activation_bytes_per_token(module, max_model_len)
    room = _room(module, num_learners)
    fitting = int(max(0.0, room) / per_token)
    chosen = min(LARGEST, max(SMALLEST, 1 << max(0, fitting.bit_length() - 1)))
    logger.info(
        "Micro-batches have %s tokens: a token takes %.0f KiB of activations, and there is room for %.1f GiB.",
        f"{chosen:,}",
        per_token / 2**10,
        room / 2**30,
    )
    if fitting < max_model_len:
        logger.warning(
            "A sequence of max_model_len=%d tokens needs about %.2g GiB of activations, and there is room for %.2g "
            "GiB: set .policy(gradient_checkpointing=True), or lower max_model_len.",
            max_model_len,
            max_model_len * per_token / 2**30,
            room / 2**30,
        )
    return chosen


def activation_bytes_per_token(module: CausalLMModule, max_model_len: int) -> float:
    """Bytes that the trunk keeps for the backward pass, a token, and what that pass needs beside them.

    Args:
        module: the policy.
        max_model_len: tokens of the longest sequence; eager attention keeps a square of it.
    """
    lm = module.lm
    eager = lm.config._attn_implementation == "eager"
    length = max_model_len if eager else min(max_model_len, _PROBE_TOKENS)
    kept = _kept_bytes(module, length)
    if lm.is_gradient_checkpointing:
        # Of every layer its input is kept, and one layer at a time is computed again.
        lm.eval()
        try:
            kept += _kept_bytes(module, length) / lm.config.get_text_config().num_hidden_layers
        finally:
            lm.train()
    return _BACKWARD * kept / length


def _kept_bytes(module: CausalLMModule, length: int) -> int:
    fixed = {local(parameter).untyped_storage().data_ptr() for parameter in module.lm.parameters()}
    own: set[int] = set()
    kept: dict[int, int] = {}

    # Asked of each layer when it is called: the weights of a sharded one have memory only then.
    def enter(layer: torch.nn.Module, *_: Any) -> None:
        own.update(p.untyped_storage().data_ptr() for p in layer.parameters(recurse=False))

    def leave(layer: torch.nn.Module, *_: Any) -> None:
        own.difference_update(p.untyped_storage().data_ptr() for p in layer.parameters(recurse=False))

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed | own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    layers = [layer for layer in module.lm.modules() if any(True for _ in layer.parameters(recurse=False))]
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [layer.register_forward_hook(leave) for layer in layers]
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            # Held until it is counted: storage that is freed would be counted under another's address.
            hidden = module.trunk(torch.zeros((1, length), dtype=torch.int64, device=module.device))
        del hidden
    finally:
        for hook in hooks:
            hook.remove()
    bring_to_rest(module.lm)
    return sum(kept.values())


def _room(module: CausalLMModule, num_learners: int) -> float:
    """Bytes for activations."""
    parameters = list(module.lm.parameters())
    trained = sum(local(p).nbytes for p in parameters if p.requires_grad)
    device = module.device
    gathered = gathered_bytes(module.lm)
    logits = _COPIES_OF_LOGITS * 4 * module.most_logits(LARGEST)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what this process has let go of is free too
        free, _ = torch.cuda.mem_get_info(device)
        return _SHARE_OF_GPU * free - 3 * trained - gathered - logits  # the gradient, AdamW's two moments
    fixed = sum(local(p).nbytes for p in module.parameters()) + 3 * trained
    return _SHARE_OF_MACHINE * memory_of_machine() / max(1, num_learners) - fixed - gathered - logits


def memory_of_machine() -> int:
    """Bytes that this machine, or the control group that the process runs in, may use."""
    total = int(psutil.virtual_memory().total)
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else ""
    return min(total, int(limit)) if limit.isdigit() else total
