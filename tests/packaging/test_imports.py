"""What of the packages can be had without Ray and torch, and how little an import and `proxmo --help` cost."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path

import pytest

LIMIT_S = 0.5
# As where nothing else is installed: what is neither Python's nor named cannot be imported.
_REFUSE = """
import sys

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {allowed} | sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refuse)
"""
#: Gymnasium brings the last three.
_WITH_GYMNASIUM = ("numpy", "gymnasium", "cloudpickle", "farama_notifications", "typing_extensions")


def run_with(allowed: Collection[str], code: str) -> str:
    """What code prints in a process that can import nothing but some packages."""
    refuse = _REFUSE.format(allowed={"env_wrappers", "proxmo_rllib", *allowed})
    command = [sys.executable, "-c", refuse + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(("name", "more"), [("TextCraft", ()), ("WebShop", ("regex",)), ("ALFWorld", ("alfworld",))])
def test_an_environment_is_played_with_gymnasium_alone(name, more):
    code = f"""
        import gymnasium, env_wrappers

        env = gymnasium.make("env_wrappers/{name}-v0")
        observation, info = env.reset(seed=0, options={{"task": env.unwrapped.tasks("train")[0]}})
        print(env.step(info["admissible_actions"][0])[0])
        assert "alfworld" not in sys.modules, "its data files are read, and no module of it"
    """
    assert run_with([*_WITH_GYMNASIUM, *more], code).strip()


def test_prompts_panels_and_the_check_of_an_environment_need_gymnasium_alone():
    code = """
        from env_wrappers.conformance import check_environment
        from env_wrappers.panels import named_panel
        from env_wrappers.prompting import wrap
        import gymnasium, env_wrappers

        print(wrap(gymnasium.make("env_wrappers/TextCraft-v0")).reset(seed=0)[0])
    """
    assert "<action>" in run_with(_WITH_GYMNASIUM, code)


def test_advantages_are_estimated_with_numpy_and_scipy_alone():
    code = """
        from proxmo_rllib.advantages import ESTIMATORS, TurnTable, estimate_advantages

        table = TurnTable(
            group=["g"] * 3, episode=[0, 0, 1], reward=[0.0, 1.0, 0.0], success=[True, True, False],
            anchor=["a room", "a hall", "a room"], action_valid=[True, True, False],
        )
        for name in ESTIMATORS:
            print(name, estimate_advantages(table, name).total)
    """
    assert "proxmo" in run_with(["numpy", "scipy"], code)


def seconds_of(words: list[str], folder: Path) -> float:
    """Processor time of a Python process, the least of three: wall time would be that of a busy machine."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


@pytest.mark.parametrize("words", [["-c", "import proxmo_rllib"], ["-m", "proxmo_rllib.cli", "--help"]])
def test_the_import_and_the_help_come_at_once(words, repository):
    assert seconds_of(words, repository) < LIMIT_S


def test_the_import_loads_nothing_that_is_not_pythons_own():
    assert run_with([], "import proxmo_rllib; print(proxmo_rllib.__version__)").strip()
    assert "usage: proxmo" in run_with([], "from proxmo_rllib.cli import main; main(['--help'])")
