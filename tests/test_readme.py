"""What README shows runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_ten_lines_train_in_a_script_that_never_heard_of_ray(repository: Path, tmp_path: Path):
    shown = re.search(r"```python\n(from proxmo_rllib.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    assert shown
    script = tmp_path / "ten_lines.py"
    script.write_text(shown[1].replace("range(10)", "range(1)"))
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
