"""Evaluation on fixed panels of tasks, with confidence intervals."""

from proxmo_rllib.evaluation.intervals import independent_trials, wilson_interval
from proxmo_rllib.evaluation.panels import PanelNotPlayedError, PanelResult, panel_assignments, summarise

__all__ = [
    "PanelNotPlayedError",
    "PanelResult",
    "independent_trials",
    "panel_assignments",
    "summarise",
    "wilson_interval",
]
