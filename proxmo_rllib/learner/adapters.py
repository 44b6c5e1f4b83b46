"""The adapters of a learner's model: trained in float32, beside a base that is frozen.

Base: bfloat16 where the arithmetic is, since nothing is added to it; with dtype="float32" it stays float32. The KL
reference is the same model with the adapters switched off: there is no second copy.

What is kept of the learner (checkpoint, copies) is the adapters alone. They mean something beside their own base only,
so that a fingerprint of it is kept with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.policies.adapters import (
    adapted_layers,
    adapter_parameters,
    describe,
    inject_adapters,
    merged_state,
    switch_adapters,
)
from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors

# In the state, beside the tensors: whose adapters they are, as bytes of JSON.
_ABOUT = "adapters_of"
# Weights of each tensor of the base that its fingerprint looks at.
_SAMPLES = 64


class Adapters:
    """Adapters in a model.

    Args:
        lm: a causal LM in float32, as it was loaded; changed in place, its forward stays its class's own.
        lora: which adapters.
        seed: of their initial weights.
        base: the model's folder or name, in words.
        dtype: of the frozen weights.

    Raises:
        ValueError: the model has no such layers.
    """

    def __init__(self, lm: Any, lora: LoRA, *, seed: int, base: str, dtype: torch.dtype) -> None:
        self._lm = lm
        self._about = {"base": base, "fingerprint": fingerprint(lm), "lora": describe(lora)}
        inject_adapters(lm, lora, seed)
        self._parameters = adapter_parameters(lm)
        self._about["layers"] = _digest(*self._parameters)
        if dtype != torch.float32:
            trained = {id(parameter) for parameter in self._parameters.values()}
            for parameter in lm.parameters():
                # Not `lm.to(dtype)`: the frequencies of rotary embeddings are buffers, and need all their digits.
                if id(parameter) not in trained:
                    parameter.data = parameter.data.to(dtype)
            for _, layer in adapted_layers(lm):
                # peft would turn activations to float32 for autocast to turn them back.
                layer.cast_input_dtype_enabled = False

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Within it the model is its base."""
        switch_adapters(self._lm, on=False)
        try:
            yield
        finally:
            switch_adapters(self._lm, on=True)

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """Within it the model computes in float32 throughout, holding one module at a time in float32; no gradient."""
        kept: dict[int, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}

        def widen(module: torch.nn.Module, inputs: Any) -> None:
            own = [p for p in module._parameters.values() if p is not None and p.dtype == torch.bfloat16]
            kept.setdefault(id(module), []).extend((parameter, parameter.data) for parameter in own)
            for parameter in own:
                parameter.data = parameter.data.float()

        def restore(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            for parameter, data in kept.pop(id(module), []):
                parameter.data = data

        handles = []
        for module in self._lm.modules():
            if any(p is not None and p.dtype == torch.bfloat16 for p in module._parameters.values()):
                handles.append(module.register_forward_pre_hook(widen))
                handles.append(module.register_forward_hook(restore, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def for_engines(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The adapters' tensors under their names in PEFT's files, on the CPU, in the engines' type."""
        return {name: p.detach().to("cpu", dtype).contiguous() for name, p in self._parameters.items()}

    def merged(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """A whole model's tensors under their checkpoint's names that does what base and adapters do, on the CPU."""
        return checkpoint_tensors(self._lm, dtype, merged_state(self._lm, dtype))

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the adapters' tensors on the CPU, and whose they are."""
        state = {name: p.detach().cpu().clone() for name, p in self._parameters.items()}
        about = json.dumps(self._about, sort_keys=True).encode()
        return state | {_ABOUT: torch.frombuffer(bytearray(about), dtype=torch.uint8)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state` returned.

        Raises:
            ValueError: it belongs to another base, or to other adapters, or holds a whole model's weights.
        """
        about = about_adapters(state)
        ours = self._about
        if about is None:
            raise ValueError(
                f"lora={ours['lora']}: the checkpoint holds all weights of a model, and no adapters. Go on without: "
                ".policy(lora=None); or start anew from its `policy` folder: .policy(pretrained='CHECKPOINT/policy')."
            )
        if about["fingerprint"] != ours["fingerprint"]:
            raise ValueError(
                f"pretrained={ours['base']!r}: the checkpoint's adapters belong to {about['base']!r}, which had other "
                f"weights (fingerprint {about['fingerprint'][:12]}, and here {ours['fingerprint'][:12]}). Take that "
                "model as it was, or start anew from the checkpoint's `policy` folder."
            )
        if about["lora"] != ours["lora"] or about["layers"] != ours["layers"]:
            raise ValueError(
                f"lora={ours['lora']}: the checkpoint's adapters are {about['lora']}; go on with "
                f".policy(lora={about['lora']}), or start anew from its `policy` folder."
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])


def about_adapters(state: Mapping[str, torch.Tensor]) -> dict[str, str] | None:
    """Whose adapters a state holds; None if it holds a whole model's weights."""
    if _ABOUT not in state:
        return None
    about: dict[str, str] = json.loads(bytes(state[_ABOUT].tolist()))
    return about


def refuse_adapters(state: Mapping[str, torch.Tensor]) -> None:
    """For a model that is trained as a whole.

    Raises:
        ValueError: the state holds adapters.
    """
    about = about_adapters(state)
    if about is not None:
        raise ValueError(
            f"lora=None: the checkpoint holds adapters of {about['base']!r}; go on with .policy(lora={about['lora']}), "
            "or start anew from its `policy` folder, in which they are merged: .policy(pretrained='CHECKPOINT/policy')."
        )


def fingerprint(lm: Any) -> str:
    """Tells a model's weights from others: SHA-256 of names, shapes and some weights of each tensor, in hexadecimal."""
    digest = hashlib.sha256()
    for name, parameter in lm.named_parameters():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // _SAMPLES)]
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        digest.update(some.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
