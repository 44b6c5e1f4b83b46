"""The page about advantages says what is so."""

import importlib.util
import re
from pathlib import Path

import pytest

from proxmo_rllib.advantages import ESTIMATORS, default_options

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "advantages.md").read_text()


def test_the_code_on_the_page_runs(capsys):
    before = dict(ESTIMATORS)
    names: dict[str, object] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(block, names)
        assert "reward_to_go" in ESTIMATORS
    finally:
        ESTIMATORS.clear()
        ESTIMATORS.update(before)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] in PAGE
    assert printed[1].strip() in PAGE


def test_the_page_names_every_estimator_and_every_option_of_proxmo():
    missing = [name for name in [*ESTIMATORS, *default_options("proxmo")] if f"`{name}" not in PAGE]
    assert not missing


def test_the_page_names_every_diagnostic(small_table):
    from proxmo_rllib.advantages import estimate_advantages

    for key in estimate_advantages(small_table, "proxmo").diagnostics():
        first, _, rest = key.partition("/")
        assert f"`{first}" in PAGE, key
        assert not rest or rest.split("_")[0] in PAGE, key


def test_every_picture_on_the_page_is_drawn_by_the_script(tmp_path):
    pytest.importorskip("matplotlib", reason="a development dependency; only the pictures need it")
    spec = importlib.util.spec_from_file_location("figures_advantages", DOCS / "figures" / "advantages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    shown = set(re.findall(r"figures/(advantages_\w+\.svg)", PAGE))
    assert shown == {path.name for path in tmp_path.iterdir()}
    assert all((DOCS / "figures" / name).is_file() for name in shown)
