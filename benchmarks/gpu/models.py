"""Models in the shape of Qwen2.5 with random weights, and learners of them without Ray: nothing is downloaded.

A learner reads its model from a folder, on the host, and then takes it to its device. For a model of 7B weights whose
values do not matter that is a file of 15 GB and minutes: here the model is made where it will be, and takes the place
of the one that would have been read. All else is the learner's own.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.device import device
from benchmarks.gpu.workload import TINY, Lengths, make_groups
from proxmo_rllib.planning.model_shape import PRESETS, ModelShape, shape_of
from proxmo_rllib.types import Group

#: Names on the Hugging Face hub, whose shapes `proxmo plan` knows.
SHAPES = {"0.5b": "Qwen/Qwen2.5-0.5B", "1.5b": "Qwen/Qwen2.5-1.5B", "7b": "Qwen/Qwen2.5-7B"}
GROUP_SIZE = 8
ADAPTERS = {"rank": 16, "alpha": 32, "target_modules": "all-linear"}
_TINY = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def config_of(size: str, tiny: bool) -> Any:
    """transformers' config of a size; tiny ones differ from each other in nothing but the tied head."""
    from transformers import Qwen2Config

    known = dict(PRESETS[SHAPES[size]])
    del known["model_type"]
    return Qwen2Config(**known | (_TINY if tiny else {}), bos_token_id=0, eos_token_id=1)


@functools.cache
def shape(size: str, tiny: bool) -> ModelShape:
    """What the operations are counted from."""
    return shape_of(config_of(size, tiny))


@functools.cache
def folder(size: str, tiny: bool) -> Path:
    """A folder that says which model, and has no weights; goes with the process."""
    path = Path(_scratch().name) / size
    config_of(size, tiny).save_pretrained(path)
    return path


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="proxmo_gpu_")


def random_causal_lm(pretrained: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """What `load_causal_lm` would read from a folder, made on the device instead; the same each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from proxmo_rllib.policies.attention import choose_attention

    config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    torch.manual_seed(0)
    with torch.device(device()):
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    choose_attention(lm)
    return lm.eval()


@contextlib.contextmanager
def on_the_device() -> Iterator[None]:
    """Within it a learner's model is made on the device."""
    with mock.patch("proxmo_rllib.learner.module.load_causal_lm", random_causal_lm):
        yield


def build_learner(config: Any) -> Any:
    """A learner in this process. RLlib would start Ray to ask it for the device."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    from env_wrappers.core import AnyText

    with mock.patch("ray.rllib.core.learner.torch.torch_learner.get_device", return_value=device()):
        return config.build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})


def learner_config(pretrained: Path, dtype: str, *, adapters: bool = False, checkpointing: bool = False) -> Any:
    """The config of such a learner; the size of its micro-batches is its own choice."""
    from benchmarks.learner.workload import base_config

    config = base_config(pretrained, "append", dtype).training(group_size=GROUP_SIZE)
    return config.policy(lora=ADAPTERS if adapters else None, gradient_checkpointing=checkpointing)


def groups_for(layout: str, size: str, tiny: bool, num_groups: int) -> list[Group]:
    """Groups of eight episodes, in a model's own token ids."""
    lengths = TINY if tiny else Lengths()
    return make_groups(layout, num_groups, GROUP_SIZE, shape(size, tiny).vocab_size, lengths)


def update(learner: Any, groups: Sequence[Group]) -> dict[str, float]:
    """One optimizer step over groups. Returns what the learner logged of its module."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    from proxmo_rllib.learner import GroupedTrainingData

    data = GroupedTrainingData(episodes=[episode for group in groups for episode in group.episodes])
    logged = learner.update(training_data=data, num_epochs=1)[DEFAULT_MODULE_ID]
    return {key: value.peek() for key, value in logged.items() if hasattr(value, "peek")}
