"""What the alfworld package ships as files, read without importing it.

Importing alfworld creates folders and imports textworld, which takes seconds and a hundred megabytes; the files need
neither. Written for alfworld 0.4.2.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def package_folder() -> Path:
    """Where the alfworld package is installed.

    Raises:
        ModuleNotFoundError: it is not.
    """
    spec = importlib.util.find_spec("alfworld")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The package 'alfworld' is not installed: ALFWorld's floor plans, domain and grammar come from it. "
            "Install it with: pip install 'alfworld>=0.4.2'"
        )
    return Path(spec.origin).parent


@cache
def domain() -> str:
    """The PDDL domain "alfred"."""
    return (package_folder() / "data" / "alfred.pddl").read_text(encoding="utf-8")


@cache
def grammar() -> str:
    """The text grammar, with UNKNOWN GOAL in the place of the task."""
    return (package_folder() / "data" / "alfred.twl2").read_text(encoding="utf-8")


@cache
def layouts_folder() -> Path:
    """Folder of FloorPlanN-objects.json and FloorPlanN-openable.json."""
    return package_folder() / "gen" / "layouts"


@cache
def constants() -> ModuleType:
    """alfworld.gen.constants: which receptacle holds what, and what can be cleaned, heated, cooled."""
    return _module("constants")


@cache
def goal_library() -> ModuleType:
    """alfworld.gen.goal_library: goals in PDDL and the sentences that describe them."""
    return _module("goal_library")


def _module(name: str) -> ModuleType:
    path = package_folder() / "gen" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_alfworld_{name}", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} cannot be loaded; reinstall with: pip install --force-reinstall alfworld")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
