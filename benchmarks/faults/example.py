"""What the fault table trains: a small policy in `FaultyEnv`, with iterations of a few seconds.

The process that trains writes the phase that it is in to the file that $PROXMO_FAULTS_PHASE names, so that a signal can
be sent in each.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.faults.environments import FaultyEnv
from env_wrappers.panels import Panel
from proxmo_rllib import ProxMOConfig, StopCriteria, activity

ENV = "benchmarks.faults.environments:FaultyEnv"
GROUPS, SIZE = 4, 4


def tell_phases(path: Path) -> None:
    """From now on each phase's name is in that file as soon as it begins."""
    begin = activity.begin

    def begin_and_tell(name: str, episodes: int = 0, **more: bool) -> None:
        path.write_text(name)
        begin(name, episodes, **more)

    activity.begin = begin_and_tell


if "PROXMO_FAULTS_PHASE" in os.environ:
    tell_phases(Path(os.environ["PROXMO_FAULTS_PHASE"]))

config = (
    ProxMOConfig()
    .environment(ENV)
    .policy(pretrained="asset:alfworld-tiny")
    .inference(engine="transformers", max_model_len=256, max_response_tokens=6)
    .env_runners(max_turns=6)
    .training(num_groups=GROUPS, group_size=SIZE, lr=1e-4)
    .evaluation(panel=Panel("faults", 1, ENV, {}, tuple(FaultyEnv().tasks("valid"))))
    .debugging(seed=0, record_groups=GROUPS)
)
stop = StopCriteria(iterations=100_000)
