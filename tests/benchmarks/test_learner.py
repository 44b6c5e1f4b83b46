"""The comparison of learners runs: each loop takes its steps, and says its time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_each_loop_takes_steps_of_the_same_episodes():
    words = ["--sizes", "tiny", "--dtypes", "float32", "--groups", "1", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learner", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [(row[1], row[3]) for row in rows] == [
        ("append", "ours"),
        ("append", "padded"),
        ("append", "turns"),
        ("window", "ours"),
        ("window", "padded"),
    ]
    assert len({row[4] for row in rows if row[1] == "append"}) == 1
    assert all(float(row[5]) > 0 and float(row[8]) > 0.1 for row in rows)
