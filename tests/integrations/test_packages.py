"""A package that is missing, or of another version, is named with what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

from proxmo_rllib.integrations.packages import require

MODULES = {
    "trl_trainer": ("trl", "0.9.0", r'pip install "proxmo_rllib\[trl\]"'),
    "openenv_server": ("openenv", "0.2.0", r'pip install "proxmo_rllib\[openenv\]"'),
    "verifiers_env": ("verifiers", "0.1.14", r'pip install "proxmo_rllib\[verifiers\]"'),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_which_package_it_needs(module: str, monkeypatch: pytest.MonkeyPatch):
    package, old, remedy = MODULES[module]
    found: dict[str, str] = {}

    def version(name: str) -> str:
        if name in found:
            return found[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.delitem(sys.modules, f"proxmo_rllib.integrations.{module}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not installed; say: {remedy}"):
        importlib.import_module(f"proxmo_rllib.integrations.{module}")
    found[package] = old
    with pytest.raises(ImportError, match=rf"{package} {old} is installed, and this was written for .*{remedy}"):
        importlib.import_module(f"proxmo_rllib.integrations.{module}")


def test_a_package_of_a_fitting_version_is_imported():
    import numpy

    assert require("numpy", ">=2", "pip install numpy") is numpy
