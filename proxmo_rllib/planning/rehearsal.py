"""What a forward and backward pass takes, found by making it without memory: the model's own code on tensors that have
shapes and no contents.

Every storage that would be allocated is counted while it would live. So nothing of a family's layers, of autocast, of
gradient checkpointing or of the loss is written again here, and nothing of it can be forgotten. What kernels allocate
for themselves is not seen.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from proxmo_rllib.config_records import LoRA


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the learner computes; what changes the memory of a pass.

    Attributes:
        dtype: "float32" or "bfloat16", of the arithmetic.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        lora: adapters beside frozen weights, if any; those weights are of the arithmetic's type.
        sharded: whether blocks are gathered in the arithmetic's type, instead of cast from whole float32 weights.
    """

    dtype: str = "float32"
    gradient_checkpointing: bool = False
    lora: LoRA | None = None
    sharded: bool = False


# glibc gives blocks from this size on a mapping of their own, and back to the system when they are freed; smaller ones
# stay in its heap (mallopt(3), M_MMAP_THRESHOLD: it grows up to 32 MiB on machines of 64 bits).
_OF_HEAP = 32 * 2**20
# Of the smaller blocks, what a heap in which they come and go takes beside them. Measured: 1.4 to 1.7 times as much in
# all, at one and 135 million weights.
_HEAP_SHARE = 1.5


@dataclass(frozen=True, slots=True)
class PassMemory:
    """Most bytes that live at once in a forward and backward pass.

    Attributes:
        all: of blocks of any size.
        small: of those below 32 MiB.
        large: of the others.
    """

    all: float
    small: float
    large: float

    @property
    def on_device(self) -> float:
        """Bytes on a device whose allocator gives freed blocks to the next that ask."""
        return self.all

    @property
    def on_host(self) -> float:
        """Bytes in a process on a CPU: what its heap once took it keeps."""
        return _HEAP_SHARE * self.small + self.large


class Rehearsal:
    """A causal LM without contents, on which passes are rehearsed.

    Layers that are all alike are not all made: two numbers of them say what one more takes.

    Args:
        config: of transformers.
        arithmetic: how it is trained.
    """

    def __init__(self, config: Any, arithmetic: Arithmetic) -> None:
        self._layers = int(config.get_text_config().num_hidden_layers)
        self._vocab_size = int(config.get_text_config().vocab_size)
        period = _period(config.get_text_config())
        few, more = 2 * period, 3 * period
        made = [self._layers] if more >= self._layers else [few, more]
        self._models = [(number, _Model(shortened(config, number), arithmetic)) for number in made]
        self._passes: dict[tuple[int, int], PassMemory] = {}
        self.eager = self._models[0][1].lm.config._attn_implementation == "eager"

    def a_pass(self, sequences: int, length: int) -> PassMemory:
        """Peak of a micro-batch beyond weights and gradients, every token of it in the loss.

        The gradients of an earlier micro-batch are there, as in all but the first of an optimizer step.

        Args:
            sequences: of the micro-batch.
            length: tokens of each.
        """
        key = (sequences, length)
        if key not in self._passes:
            one_more = sequences > 2 and self._logits_in_parts(length)
            self._passes[key] = self._of_more(sequences, length) if one_more else self._rehearse(sequences, length)
        return self._passes[key]

    def _logits_in_parts(self, length: int) -> bool:
        """Whether one sequence has all the logits that may be in memory at once."""
        from proxmo_rllib.learner.module import MAX_LOGITS

        return (length - 1) * self._vocab_size > MAX_LOGITS

    def _of_more(self, sequences: int, length: int) -> PassMemory:
        """A pass of more than two sequences without its many parts of logits.

        While logits are there, one sequence more takes what the second did. The peak may be elsewhere, in the layers.
        """
        one, two = (astuple(self.a_pass(number, length)) for number in (1, 2))
        at_logits = [a + (sequences - 1) * (b - a) for a, b in zip(one, two, strict=True)]
        in_layers = astuple(self._rehearse(sequences, length, with_logits=False))
        return PassMemory(*map(max, at_logits, in_layers))

    def kept_bytes(self, length: int) -> float:
        """Bytes that the trunk keeps for the backward pass of one sequence of so many tokens."""
        return self._of_all_layers([model.kept_bytes(length) for _, model in self._models])

    def _rehearse(self, sequences: int, length: int, *, with_logits: bool = True) -> PassMemory:
        measured = [model.a_pass(sequences, length, with_logits) for _, model in self._models]
        # Forward and backward pass each grow evenly with the layers; which of them has the peak may change with them.
        phases = [
            [self._of_all_layers(numbers) for numbers in zip(*map(astuple, of_phase), strict=True)]
            for of_phase in zip(*measured, strict=True)
        ]
        return PassMemory(*map(max, zip(*phases, strict=True)))

    def _of_all_layers(self, measured: Sequence[float]) -> float:
        """What all layers take, from what each of the models did."""
        if len(measured) == 1:
            return measured[0]
        few, more = (number for number, _ in self._models)
        return measured[0] + (self._layers - few) / (more - few) * (measured[1] - measured[0])


def _period(config: Any) -> int:
    """Layers after which a model's kinds of layers repeat; all of them, if they do not or it cannot be told."""
    layers = int(config.num_hidden_layers)
    if getattr(config, "first_k_dense_replace", 0) or getattr(config, "decoder_sparse_step", 1) != 1:
        return layers
    kinds = [value for value in vars(config).values() if isinstance(value, (list, tuple)) and len(value) == layers]
    for period in range(1, layers):
        if all(kind[i] == kind[i + period] for kind in kinds for i in range(layers - period)):
            return period
    return layers


def shortened(config: Any, layers: int) -> Any:
    """A copy of a model's config with its first layers only."""
    short = copy.deepcopy(config)
    text = short.get_text_config()
    all_layers = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if isinstance(value, (list, tuple)) and len(value) == all_layers:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return short


class _Model:
    """A model without contents."""

    def __init__(self, config: Any, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self._mode = FakeTensorMode()
        with self._mode:
            self.lm = _build(config, arithmetic)

    def a_pass(self, sequences: int, length: int, with_logits: bool) -> tuple[PassMemory, PassMemory]:
        """Peaks of the forward and of the backward pass."""
        from proxmo_rllib.learner.module import _in_parts

        with self._mode, _nothing_packed():
            for parameter in self.lm.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
        with self._mode, _nothing_packed(), _LiveStorages() as counted:
            counted.ignore(self.lm)
            policy = _taken_apart(self.lm)
            ids = torch.zeros((sequences, length), dtype=torch.int64)
            with self._autocast():
                hidden = policy.hidden(ids)[:, :-1].flatten(0, 1)
                if with_logits:
                    logprobs, entropy = _in_parts(policy, hidden, ids[:, 1:].flatten(), 0.7)
                    loss = logprobs.sum() + entropy.sum()
                    del logprobs, entropy
                else:
                    loss = (hidden * hidden).sum()
            del hidden
            forward = counted.peak
            counted.begin_again()
            loss.backward()
        return forward, counted.peak

    def kept_bytes(self, length: int) -> int:
        own = {parameter.untyped_storage()._cdata for parameter in self.lm.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with self._mode:
            policy = _taken_apart(self.lm)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with self._mode, _nothing_packed(), hooks, self._autocast():
            ids = torch.zeros((1, length), dtype=torch.int64)
            # Held until it is counted: what is freed would be counted under another's address.
            hidden = policy.hidden(ids)
        del hidden
        return sum(kept.values())

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._arithmetic.dtype == "float32" or self._arithmetic.sharded:
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=getattr(torch, self._arithmetic.dtype))


def _taken_apart(lm: Any) -> Any:
    """The model as the learner takes it apart."""
    from proxmo_rllib.learner.own_forward import OwnForward

    class Unchecked(OwnForward):
        """There are no logits to compare."""

        def _compare(self) -> None:
            return

    return Unchecked(lm)


@contextlib.contextmanager
def _nothing_packed() -> Iterator[None]:
    """Keeps transformers (5.16 to 5.19) from looking for packed sequences in positions that have no contents.

    It would make a mask for the worst case, where a real pass needs none.
    """
    from transformers import masking_utils

    found = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = found


def _build(config: Any, arithmetic: Arithmetic) -> Any:
    from transformers import AutoModelForCausalLM

    from proxmo_rllib.policies.attention import asks_for_more

    cast = arithmetic.sharded or arithmetic.lora is not None
    dtype = getattr(torch, arithmetic.dtype) if cast else torch.float32
    lm = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    # A learner's own model says so where SDPA was found to compute something else.
    eager = getattr(config, "_attn_implementation", None) == "eager" or asks_for_more(lm)
    if lm.config._attn_implementation == "sdpa" and eager:
        lm.set_attn_implementation("eager")
    if arithmetic.lora is not None:
        lm.requires_grad_(False)
        for parent, name, layer in list(adapted_layers(lm, arithmetic.lora)):
            setattr(parent, name, _Adapted(layer, arithmetic.lora.rank, dtype if arithmetic.sharded else torch.float32))
    if arithmetic.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        lm.train()  # outside of it transformers checkpoints nothing
    return lm


def adapted_layers(lm: Any, lora: LoRA) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """The linear layers of a model that have an adapter: parent, name in it, and the layer itself.

    Raises:
        ValueError: no layer has one.
    """
    head = lm.get_output_embeddings()
    found = False
    for parent in list(lm.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, torch.nn.Linear) or layer is head:
                continue
            if lora.target_modules == "all-linear" or name in lora.target_modules:
                found = True
                yield parent, name, layer
    if not found:
        names = sorted({name.rsplit(".", 1)[-1] for name, m in lm.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ValueError(
            f"lora={{'target_modules': {lora.target_modules!r}}}: {type(lm).__name__} has no such linear layer; it has "
            f"{', '.join(names)}."
        )


class _Adapted(torch.nn.Module):
    """A linear layer with an adapter, computed in the order in which peft does."""

    def __init__(self, base: torch.nn.Linear, rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, rank, bias=False, dtype=dtype)
        self.up = torch.nn.Linear(rank, base.out_features, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x.to(self.down.weight.dtype))) * 2.0


def _grouped_product(
    one: torch.Tensor, other: torch.Tensor, offsets: torch.Tensor | None = None, *more: Any, **options: Any
) -> torch.Tensor:
    """What a product of each group of rows (the experts') returns, of the right shape.

    PyTorch's own rule for that shape allows a GPU's types only, and a CPU computes it in float32 too.
    """
    if one.dim() == 2 and other.dim() == 2:
        assert offsets is not None
        shape = [len(offsets), one.shape[0], other.shape[1]]
    elif one.dim() == 2 or other.dim() == 2:
        shape = [one.shape[-2], other.shape[-1]]
    else:
        shape = [one.shape[0], one.shape[1], other.shape[2]]
    return one.new_empty(shape)


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages that operations make, from their first tensor to the end of their last."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._now = [0, 0]  # of small and large blocks
        self.begin_again()

    @property
    def peak(self) -> PassMemory:
        """The most at once so far."""
        return PassMemory(self._most, *self._most_of)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        grouped = func is torch.ops.aten._grouped_mm.default
        result = _grouped_product(*args, **(kwargs or {})) if grouped else func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return result

    def ignore(self, lm: torch.nn.Module) -> None:
        """Counts a model's own tensors and their gradients as nothing."""
        gradients = [parameter.grad for parameter in lm.parameters() if parameter.grad is not None]
        for tensor in (*lm.parameters(), *lm.buffers(), *gradients):
            self._sizes[tensor.untyped_storage()._cdata] = 0

    def begin_again(self) -> None:
        """Forgets the peak, and not what lives."""
        self._most, self._most_of = sum(self._now), list(self._now)

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            return
        self._sizes[key] = size
        kind = size >= _OF_HEAP
        self._now[kind] += size
        self._most_of[kind] = max(self._most_of[kind], self._now[kind])
        self._most = max(self._most, sum(self._now))
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        size = self._sizes.pop(key, 0)
        self._now[size >= _OF_HEAP] -= size
