"""The Python that the docs show runs as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .finding import PAGES

REPOSITORY = Path(__file__).resolve().parents[2]
#: Who runs the blocks of a page.
RUN_BY = {
    "README.md": "tests/test_readme.py",
    "docs/advantages.md": "tests/advantages/test_docs.py",
    "docs/curriculum.md": "tests/commands/test_python_blocks.py",
    "docs/endpoint.md": "tests/endpoint/test_docs.py",
    "docs/environments.md": "tests/commands/test_python_blocks.py",
    "docs/objectives.md": "tests/commands/test_python_blocks.py",
    "docs/own_environment.md": "tests/commands/test_python_blocks.py",
    "docs/sweeps.md": "tests/commands/test_python_blocks.py",
    "docs/other_programs.md": "tests/integrations/test_docs.py",
    "docs/recipes.md": "tests/tuned_examples/test_recipes.py",
    "docs/own_estimator.md": "tests/commands/test_python_blocks.py",
    "docs/own_objective.md": "tests/commands/test_python_blocks.py",
    "docs/own_reward.md": "tests/commands/test_python_blocks.py",
    "docs/own_template.md": "tests/commands/test_python_blocks.py",
}


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)


def test_every_page_with_python_in_it_is_run_by_a_test():
    pages = {str(path.relative_to(REPOSITORY)) for pattern in PAGES for path in REPOSITORY.glob(pattern)}
    assert {page for page in pages if blocks_of(page)} == RUN_BY.keys()
    assert all((REPOSITORY / test).is_file() for test in RUN_BY.values())


@pytest.mark.parametrize("block", blocks_of("docs/environments.md"), ids=lambda block: block.splitlines()[-1][:40])
def test_the_blocks_about_environments_run(block: str, shared: Path):
    import gymnasium

    import env_wrappers  # noqa: F401 (registers the environments)

    names: dict[str, Any] = {
        "gymnasium": gymnasium,
        "env": gymnasium.make("env_wrappers/ALFWorld-v0"),  # that of the page's first block
        "FOLDER": str(shared / "data" / "webshop"),
        "GAMES": str(shared / "data" / "alfworld"),
    }
    # One word stands for two places, as the reader sees from the argument.
    typed = block.replace("games=PATH", "games=GAMES").replace("catalogue=PATH", "catalogue=FOLDER")
    exec(compile(typed, "environments.md", "exec"), names)


def test_the_blocks_about_an_environment_of_ones_own_run_one_after_the_other():
    names: dict[str, Any] = {"__name__": "own_environment"}
    for block in blocks_of("docs/own_environment.md"):
        exec(compile(block, "own_environment.md", "exec"), names)
    assert names["config"].env is names["GuessEnv"]


def test_the_blocks_about_objectives_run_one_after_the_other():
    from proxmo_rllib import ProxMOConfig
    from proxmo_rllib.learner.objectives import OBJECTIVES

    known = set(OBJECTIVES)
    names: dict[str, Any] = {"__name__": "objectives", "config": ProxMOConfig()}
    try:
        for block in blocks_of("docs/objectives.md"):
            exec(compile(block, "objectives.md", "exec"), names)
    finally:
        for name in OBJECTIVES.keys() - known:  # what a reader registers
            del OBJECTIVES[name]


def test_the_blocks_about_curricula_run_one_after_the_other():
    from proxmo_rllib import ProxMOConfig
    from proxmo_rllib.curriculum import TASK_ORDERS, TaskSampler

    known = set(TASK_ORDERS)
    config = ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")
    names: dict[str, Any] = {"__name__": "curriculum", "config": config}
    try:
        for block in blocks_of("docs/curriculum.md"):
            exec(compile(block, "curriculum.md", "exec"), names)
            config.validate()
        config.curriculum(task_order={"name": "shortest_first", "longest": 40}).validate()
        dealt = TaskSampler.of(config, ["second", "last" * 9, "one", "never" * 9]).deal(4, 8)
        assert [assignment.task for assignment in dealt] == ["one", "second", "last" * 9, "one"]
    finally:
        for name in TASK_ORDERS.keys() - known:  # what a reader registers
            del TASK_ORDERS[name]


def test_the_blocks_about_sweeps_make_a_sweep_that_is_checked_and_go_to_tune_as_they_are():
    """tests/tuning and tests/test_readme.py run such; here none starts."""
    from types import SimpleNamespace

    from proxmo_rllib import ProxMO
    from proxmo_rllib.tuning.checks import trial_configs

    given: dict[str, Any] = {}

    def tuner(trainable: Any, **arguments: Any) -> Any:
        given.update(arguments, trainable=trainable)
        return SimpleNamespace(fit=lambda: "results")

    names: dict[str, Any] = {"__name__": "sweeps"}
    first, second = blocks_of("docs/sweeps.md")
    exec(compile(first, "sweeps.md", "exec"), names)
    assert [trial.psc_beta for trial in trial_configs(names["config"], names["tune_config"])] == [0.0, 0.1]
    names["tune"] = SimpleNamespace(Tuner=tuner, RunConfig=names["tune"].RunConfig)
    exec(compile(second, "sweeps.md", "exec"), names)
    assert names["results"] == "results"
    assert given["param_space"] is names["config"]
    assert given["trainable"] is ProxMO


@pytest.fixture
def registries() -> Iterator[None]:
    """What a reader registers is forgotten again."""
    from proxmo_rllib.advantages import ESTIMATORS
    from proxmo_rllib.learner.objectives import OBJECTIVES

    known: list[MutableMapping[str, Any]] = [ESTIMATORS, OBJECTIVES]
    before = [set(registry) for registry in known]
    yield
    for registry, names in zip(known, before, strict=True):
        for name in set(registry) - names:
            del registry[name]


@pytest.mark.parametrize("page", ["own_reward", "own_estimator", "own_objective", "own_template"])
@pytest.mark.usefixtures("registries")
def test_what_a_how_to_page_builds_is_taken_by_the_config(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The blocks run as a reader's module does, its tests too, and a run would take its config."""
    module = ModuleType(page)
    monkeypatch.setitem(sys.modules, page, module)  # so that its classes can be pickled
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(f"docs/{page}.md"):
        exec(compile(block, f"{page}.md", "exec"), vars(module))
    for name, thing in list(vars(module).items()):
        if name.startswith("test_"):
            thing()
    module.config.validate()
