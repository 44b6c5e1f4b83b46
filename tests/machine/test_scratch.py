"""What a killed process leaves in temporary folders is removed by whoever comes next, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from proxmo_rllib.machine.scratch import Scratch, remove_abandoned

OWNER = """
import sys, time
from pathlib import Path
from proxmo_rllib.machine.scratch import Scratch

scratch = Scratch(Path(sys.argv[1]))
(scratch.path / "weights.safetensors").write_bytes(bytes(100))
print(scratch.path, flush=True)
time.sleep(600)
"""


def test_the_folder_of_a_killed_process_is_removed_and_that_of_one_that_lives_is_not(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    others = tmp_path / "proxmo"
    others.mkdir()
    with Scratch(tmp_path) as mine:
        (mine / "file").touch()
        assert remove_abandoned([tmp_path]) == []
        owner.kill()
        owner.wait()
        assert remove_abandoned([tmp_path]) == [folder]
        assert sorted(tmp_path.iterdir()) == sorted([others, mine])
        assert (mine / "file").exists()
    assert [*tmp_path.iterdir()] == [others]
    assert remove_abandoned([tmp_path / "none"]) == []


def test_it_is_removed_by_hand_too_and_twice(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.remove()
    scratch.remove()
    assert [*tmp_path.iterdir()] == []
