"""A setting may be given any value: it is taken, or refused as a ValueError that names the setting."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.cli.settings import split_settings
from proxmo_rllib.config_checks import RULES
from tests.fuzz.inputs import JSON, NUMBERS, WORDS, fuzz, outcome

METHODS = (
    "policy",
    "inference",
    "prompting",
    "training",
    "curriculum",
    "learners",
    "evaluation",
    "env_runners",
    "fault_tolerance",
    "debugging",
)
SETTERS = {
    key: method
    for method in METHODS
    for key in inspect.signature(getattr(ProxMOConfig, method)).parameters
    if key in RULES
} | {"sample_timeout_s": "env_runners"}  # RLlib's own
FOREIGN = st.sampled_from(
    [np.zeros(2), np.array([]), np.int64(3), np.float32("nan"), torch.zeros(2), {1}, b"x", 1j, object(), int, (1, 2)]
)
VALUES = NUMBERS | WORDS | JSON | st.booleans() | FOREIGN
# Values that one setting takes and another may not.
KNOWN = st.sampled_from(["vllm", "transformers", "bfloat16", "window", "bare", "tagged", "proxmo", "token", "learner"])


def validated(values: dict[str, Any]) -> None:
    config = ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")
    for key, value in values.items():
        getattr(config, SETTERS[key])(**{key: value})
    config.validate()


def names(refusal: str, key: str) -> bool:
    """The setting, or another that does not go with it. A panel is refused by its own name, an estimator as one."""
    return any(other in refusal for other in (key, key.replace("_", " "), "panel", *RULES))


def test_every_rule_has_its_setter() -> None:
    assert set(SETTERS) >= set(RULES) - {"seed", "num_epochs", "gamma", "grad_clip"}


@fuzz
@given(key=st.sampled_from(sorted(SETTERS)), value=VALUES | KNOWN)
def test_a_value_is_taken_or_refused_by_name(key: str, value: Any) -> None:
    _, refusal = outcome(lambda: validated({key: value}), ValueError, FileNotFoundError)
    assert refusal is None or names(refusal, key)


@fuzz
@given(
    values=st.dictionaries(st.sampled_from(sorted(SETTERS)), NUMBERS | KNOWN | st.booleans(), min_size=2, max_size=4)
)
def test_several_together_are_taken_or_refused_by_the_name_of_one(values: dict[str, Any]) -> None:
    _, refusal = outcome(lambda: validated(values), ValueError, FileNotFoundError)
    assert refusal is None or any(names(refusal, key) for key in values)


@fuzz
@given(words=st.lists(WORDS | st.builds("{}={}".format, WORDS | st.sampled_from(sorted(SETTERS)), WORDS), max_size=3))
def test_words_of_the_command_line_are_settings_or_a_value_error(words: list[str]) -> None:
    settings, refusal = outcome(lambda: split_settings(words), ValueError)
    assert refusal is not None or all(isinstance(key, str) for key in dict(settings))


@pytest.mark.parametrize(
    "value", [10**400, np.zeros(2), {1}, [], torch.zeros(2)], ids=["huge", "array", "set", "list", "tensor"]
)
@pytest.mark.parametrize("key", sorted(SETTERS))
def test_what_cannot_even_be_compared_is_refused(key: str, value: Any) -> None:
    whole = isinstance(value, int) and "whole number" in RULES[key].says
    if whole or key in ("run_folder", "pretrained"):
        return
    with pytest.raises(ValueError, match=key):
        validated({key: value})
