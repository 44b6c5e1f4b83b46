"""A plan says the micro-batch that the learner will choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.learner import microbatch_size
from proxmo_rllib.planning import Hardware, PlannedModel, PlannedSettings, make_plan

MIB = 2**20


@pytest.mark.parametrize("machine", [380 * MIB, 450 * MIB, 700 * MIB, 1500 * MIB, 24 * 2**30])
@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "bfloat16"}, {"gradient_checkpointing": True}], ids=["plain", "bfloat16", "checkpointing"]
)
def test_a_plan_says_the_micro_batch_that_the_learner_chooses(
    changes: dict[str, Any], machine: int, tiny_policy: Path, laptop: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microbatch_size, "memory_of_machine", lambda: machine)
    config = ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained=tiny_policy, **changes)
    hardware = Hardware(0, 80, machine, laptop.host)
    planned = make_plan(PlannedModel.read(tiny_policy), PlannedSettings.of(config), hardware)
    learner: Any = config.build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    assert planned.tokens_per_microbatch == learner._tokens_per_microbatch
