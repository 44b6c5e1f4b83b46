"""Words that can be no file's name are refused like any that names none: by the setting, with what to give."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.data_files import data_path
from env_wrappers.panels import find_panel
from proxmo_rllib.cli.examples import find_example
from proxmo_rllib.cli.policies import find_policy
from proxmo_rllib.model_checks import check_model
from proxmo_rllib.planning.model_shape import read_config
from proxmo_rllib.policies.loading import resolve_pretrained

WORDS = ["a" * 1000, "b/" * 3000, "~nobody-of-this-name/x", "zero\0byte"]
READERS: dict[str, Callable[[str], Any]] = {
    "panel": find_panel,
    "pretrained": resolve_pretrained,
    "model": lambda word: check_model(word, "transformers", None),
    "config": read_config,
    "policy": find_policy,
}


@pytest.mark.parametrize("word", WORDS, ids=["long", "deep", "home of nobody", "zero byte"])
@pytest.mark.parametrize("reader", READERS)
def test_it_is_refused_or_taken_for_a_name(reader: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with contextlib.suppress(ValueError, FileNotFoundError):
        READERS[reader](word)


@pytest.mark.parametrize("word", WORDS, ids=["long", "deep", "home of nobody", "zero byte"])
def test_data_and_examples_are_not_there(word: str) -> None:
    assert not os.path.exists(data_path("games", word))
    assert find_example(Path(word)) is None
