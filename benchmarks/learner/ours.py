"""The project's Learner, one optimizer step a line; see `plain`.

python -m benchmarks.learner.ours MODEL LAYOUT DTYPE THREADS GROUPS GROUP_SIZE

It plays the episodes itself, which are the same each time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from benchmarks.learner.plain import serve
from benchmarks.learner.workload import base_config, play
from env_wrappers.core import AnyText
from proxmo_rllib.learner import GroupedTrainingData


def main() -> None:
    """Serves steps."""
    model, layout, dtype, threads, num_groups, group_size = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = base_config(Path(model), layout, dtype).training(group_size=int(group_size))
    groups = play(config, int(num_groups), int(group_size))
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    episodes = [episode for group in groups for episode in group.episodes]
    serve(lambda: learner.update(training_data=GroupedTrainingData(episodes=list(episodes))))


if __name__ == "__main__":
    main()
