"""The project's Learner, one optimizer step a line; see `plain`.

python -m benchmarks.learner.ours FOLDER MODEL LAYOUT DTYPE THREADS
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from benchmarks.learner.plain import serve
from benchmarks.learner.workload import base_config
from env_wrappers.core import AnyText
from proxmo_rllib.learner import GroupedTrainingData
from proxmo_rllib.types import Group


def main() -> None:
    """Serves steps."""
    folder, model, layout, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    groups: list[Group] = pickle.loads((Path(folder) / "groups.pickle").read_bytes())
    config = base_config(Path(model), layout, dtype).training(group_size=len(groups[0].episodes))
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (AnyText(), AnyText())})
    episodes = [episode for group in groups for episode in group.episodes]
    serve(lambda: learner.update(training_data=GroupedTrainingData(episodes=list(episodes))))


if __name__ == "__main__":
    main()
