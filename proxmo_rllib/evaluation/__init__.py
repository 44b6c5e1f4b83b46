"""Evaluation on fixed panels of tasks, with confidence intervals."""

from proxmo_rllib.evaluation.intervals import wilson_interval
from proxmo_rllib.evaluation.panels import PanelResult, panel_assignments, summarise

__all__ = ["PanelResult", "panel_assignments", "summarise", "wilson_interval"]
