"""A training run from start to end: its loop, its folder, what is shown of it."""

from proxmo_rllib.training_run.folder import RunFolder
from proxmo_rllib.training_run.progress import PanelScore, Progress

__all__ = ["PanelScore", "Progress", "RunFolder"]
