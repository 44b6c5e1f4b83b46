"""The Python of docs/other_programs.md runs; what needs another program is run by tests/others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from proxmo_rllib.integrations import token_advantages

PAGE = Path(__file__).parents[2] / "docs" / "other_programs.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
OTHERS = {"trl", "transfer_queue", "verifiers_env"}


def needs_another_program(block: str) -> bool:
    return any(re.search(rf"^(?:from|import) \S*{name}\b", block, re.MULTILINE) for name in OTHERS)


@pytest.mark.parametrize("block", [b for b in BLOCKS if not needs_another_program(b)], ids=lambda b: b.split("\n")[-2])
def test_a_block_runs_as_it_stands(block: str):
    names: dict[str, Any] = {"__name__": "other_programs"}
    exec(compile(block, PAGE.name, "exec"), names)
    if "advantages" in names:
        expected = token_advantages(names["episodes"], names["response_mask"].numpy(), "proxmo", gamma=0.95)
        assert names["advantages"].tolist() == expected.tolist()
    else:
        names["config"].policy(pretrained="some/model").validate()


def test_the_other_blocks_are_python():
    others = [block for block in BLOCKS if needs_another_program(block)]
    assert len(others) == 3
    for block in others:
        compile(block, PAGE.name, "exec")
