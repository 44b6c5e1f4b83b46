"""What README shows runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def shown_in(readme: Path, first: str) -> str:
    """The Python block that begins with these words."""
    block = re.search(rf"```python\n({re.escape(first)}.*?)```", readme.read_text(), re.DOTALL)
    assert block
    return block[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sweep_runs_to_its_table_on_two_cores_in_a_script(repository: Path, tmp_path: Path):
    config = shown_in(repository / "README.md", "from proxmo_rllib").partition("algo = ")[0]
    sweep = shown_in(repository / "README.md", "from ray import tune")
    script = tmp_path / "sweep.py"
    # The second core of this machine, and no more, whatever it has.
    script.write_text(f"import os\nos.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n{config}\n{sweep}")
    environment = os.environ | {"HOME": str(tmp_path)}  # Ray keeps results there
    ended = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    table = ended.stdout[ended.stdout.rindex("config/psc_beta") :].splitlines()
    rows = [line.split() for line in table[1:3]]
    assert [float(beta) for _, beta, _ in rows] == [0.0, 0.1]
    assert all(0 <= float(rate) < 0.6 for _, _, rate in rows)


@pytest.mark.slow
def test_the_ten_lines_train_in_a_script_that_never_heard_of_ray(repository: Path, tmp_path: Path):
    shown = shown_in(repository / "README.md", "from proxmo_rllib")
    script = tmp_path / "ten_lines.py"
    script.write_text(shown.replace("range(10)", "range(1)"))
    command = [sys.executable, script]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rates = [float(line) for line in ended.stdout.splitlines() if re.fullmatch(r"[01]\.\d+", line)]
    assert len(rates) == 1
    assert 0 <= rates[0] < 0.6  # of a policy that has yet to learn
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    # The rate, two or three lines of Ray's about the cluster that it starts, a bar while weights are read.
    assert len(said) < 9, "\n".join(said)
    assert not [line for line in said if "InferenceActor" in line or "Failed" in line or "Deprecat" in line]
