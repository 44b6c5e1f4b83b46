"""Between a model's tensors in transformers and those in its checkpoint: names, forms, ties.

Transformers renames and merges tensors when it loads (the experts of a layer become one tensor, a model with pictures
gives up all but its text) and turns them back when it saves. All that leans on how it does so stands here, written for
transformers 5.16 to 5.19.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Comparison:
    """A checkpoint's names beside a model's.

    Attributes:
        part_of: the checkpoint's names that the model loads.
        foreign: those that it does not.
        missing: the model's names that nothing in the checkpoint fills.
        shapes: in the model, of those that it loads as they are.
        tied: the checkpoint's names whose tensor in the model is another one (an LM head that is the embedding), and
            the name of that.
    """

    part_of: frozenset[str]
    shapes: Mapping[str, tuple[int, ...]]
    foreign: frozenset[str]
    missing: tuple[str, ...]
    tied: Mapping[str, str]


def model_without_weights(config: Any) -> Any:
    """The causal LM of a config, on the device "meta": names and shapes, no memory."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def compare_names(names: Iterable[str], lm: Any) -> Comparison:
    """Which of a checkpoint's names a model loads.

    Args:
        names: in the checkpoint.
        lm: a causal LM of transformers; may be without weights.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(lm)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    targets = {pattern: entry.target_patterns for entry in converters for pattern in entry.source_patterns}
    state = lm.state_dict()
    part_of: set[str] = set()
    shapes: dict[str, tuple[int, ...]] = {}
    foreign: set[str] = set()
    tied: dict[str, str] = {}
    unfilled = set(state)
    source_of: dict[str, str] = {}
    for name in names:
        renamed, pattern = rename_source_key(name, renamings, converters, lm.base_model_prefix, state)
        if renamed not in state:
            foreign.add(name)
            continue
        part_of.add(name)
        source_of.setdefault(renamed, name)
        unfilled.discard(renamed)
        if pattern is None:
            shapes[name] = tuple(state[renamed].shape)
        elif len(targets[pattern]) > 1:
            # One tensor of the checkpoint is several of the model: the others are named like the first.
            first = targets[pattern][0]
            unfilled -= {renamed.replace(first, other) for other in targets[pattern][1:]}
    ties: dict[str, str] = dict(lm.all_tied_weights_keys)
    for target, origin in ties.items():
        if target in source_of and origin in source_of:
            tied[source_of[target]] = source_of[origin]
        unfilled.discard(target if origin in source_of else "")
        unfilled.discard(origin if target in source_of else "")
    return Comparison(frozenset(part_of), shapes, frozenset(foreign), tuple(sorted(unfilled)), tied)


@dataclass(frozen=True, slots=True)
class LoadingStep:
    """How some tensors of a model come of some of its checkpoint's.

    Attributes:
        target: the model's name; of several, the first.
        names: the checkpoint's, in the order in which they are merged.
        is_plain: whether the one is the other as it is.
    """

    target: str
    names: tuple[str, ...]
    is_plain: bool
    _patterns: tuple[str, ...]
    _converter: Any

    def convert(self, lm: Any, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's tensors, whole, by their names.

        Args:
            lm: the model.
            tensors: of `names`.
        """
        converter = copy.deepcopy(self._converter)
        for name, pattern, tensor in zip(self.names, self._patterns, tensors, strict=True):
            converter.add_tensor(self.target, name, pattern, tensor)
        made = converter.convert(self.target, model=lm, config=lm.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def loading_steps(names: Iterable[str], lm: Any) -> list[LoadingStep]:
    """What `from_pretrained` would do to load a checkpoint, a tensor or a group that belongs together at a time.

    Notes in the model which conversions there were, as `from_pretrained` does: `checkpoint_tensors` reverts them.

    Args:
        names: in the checkpoint.
        lm: a causal LM of transformers; may be without weights.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(lm)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    state = lm.state_dict()
    sources: dict[str, list[tuple[str, str | None]]] = {}
    for name in sorted(names, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, lm.base_model_prefix, state)
        if renamed not in state and name in state:  # it has the model's own name already
            renamed, pattern = name, None
        if renamed in state:
            sources.setdefault(renamed, []).append((name, pattern))
    lm._weight_conversions = [entry for entry in mapping if entry.was_used()]
    steps = []
    for target, found in sources.items():
        patterns = tuple(pattern for _, pattern in found if pattern is not None)
        converter = by_pattern[patterns[0]] if patterns else None
        steps.append(LoadingStep(target, tuple(name for name, _ in found), not patterns, patterns, converter))
    return steps


def load_checkpoint_tensors(lm: Any, state: dict[str, torch.Tensor]) -> None:
    """Gives a model the tensors of `checkpoint_tensors`, on any device."""
    loaded = type(lm).from_pretrained(None, config=lm.config, state_dict=state, dtype=lm.dtype)
    lm.load_state_dict(loaded.state_dict())


def in_checkpoint_form(lm: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Some of a model's tensors, all of a block or one that stands for itself, under their checkpoint's names.

    Args:
        lm: the model.
        tensors: by its names, whole; without those that are tied to another.
    """
    from transformers.core_model_loading import revert_weight_conversion

    made: dict[str, torch.Tensor] = revert_weight_conversion(lm, tensors)
    return made


def checkpoint_tensors(
    lm: Any, dtype: torch.dtype, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """A model's tensors as its checkpoint holds them: parameters and buffers, tied ones once, on the CPU.

    Args:
        lm: a causal LM of transformers.
        dtype: of the floating-point tensors.
        state: its state dict; None for what it holds. With adapters, what it would hold if they were merged.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    state = {name: tensor.detach() for name, tensor in (lm.state_dict() if state is None else state).items()}
    state = revert_weight_conversion(lm, remove_tied_weights_from_state_dict(state, lm))
    return {
        name: tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in state.items()
    }
