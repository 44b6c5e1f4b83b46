"""The options that estimators share: what each means and which values it takes.

An estimator names the options it has as keyword arguments; the ranges stand here once, so that a wrong value is refused
with the same words everywhere.
"""

from __future__ import annotations

import re
from typing import Any

from proxmo_rllib.registry import Option, number, optional


def _one_of(*choices: str) -> Option:
    return Option("one of " + ", ".join(map(repr, choices)), lambda value: isinstance(value, str) and value in choices)


def _count(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _pattern(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return re.compile(value).groups <= 1
    except re.error:
        return False


_FLAG = Option("True or False", lambda value: isinstance(value, bool))

OPTIONS: dict[str, Option] = {
    "gamma": Option("a discount from 0 to 1", number(0.0, 1.0)),
    "step_weight": Option("a weight of at least 0", number(0.0)),
    "invalid_action_penalty": Option("a penalty of at least 0, unit of reward", number(0.0)),
    "outcome": _one_of("success", "return"),
    "normalize_std": _FLAG,
    "episode_mean_over": _one_of("episodes", "turns", "steps"),
    "psc_alpha": Option("an exponent above 0", number(0.0, open_low=True)),
    "psc_beta": Option("a strength of at least 0, or None", optional(number(0.0))),
    "psc_range": Option("a largest deviation from 1, 0 to 1, or None", optional(number(0.0, 1.0))),
    "psa_temperature": Option("a temperature above 0", number(0.0, open_low=True)),
    "include_self": _FLAG,
    "idf_scope": _one_of("group", "batch"),
    "time_pooling": Option(
        "'all', 'step', or a window of at least 0 time steps", lambda v: v in ("all", "step") or _count(v, 0)
    ),
    "similarity": Option(
        "'tfidf', 'exact', 'embedding:<folder of a Model2Vec model>', or a function of a list of anchors",
        lambda v: callable(v) or (isinstance(v, str) and (v in ("tfidf", "exact") or v.startswith("embedding:"))),
    ),
    "tfidf_token_pattern": Option("a regular expression of one token, with at most one group", _pattern),
    "tfidf_max_features": Option("a number of terms of at least 1, or None", optional(lambda v: _count(v, 1))),
    "distance_decay": Option("a factor above 0, at most 1", number(0.0, 1.0, open_low=True)),
    "history": Option("a number of observations of at least 0", lambda v: _count(v, 0)),
    "history_exponent": Option("an exponent of at least 0", number(0.0)),
    "normalization": _one_of("mean", "mean_std"),
    "similarity_threshold": Option(
        "a similarity above 0, at most 1, or None", optional(number(0.0, 1.0, open_low=True))
    ),
}
