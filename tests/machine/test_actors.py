"""An actor that does not answer says what it waits for: a place, or a processor."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from proxmo_rllib.machine.actors import describe_waiting

pytestmark = pytest.mark.slow


@ray.remote(num_cpus=5)  # of the eight that there are: one has a place, and the other waits for it
class Loading:
    def __init__(self, gate: str) -> None:
        while not os.path.exists(gate):
            time.sleep(0.05)

    def answer(self) -> int:
        return os.getpid()


def test_one_that_has_a_process_is_told_from_one_that_waits_for_a_place(local_ray: None, tmp_path: Path):
    gate = tmp_path / "gate"
    first: Any = Loading.remote(str(gate))
    text = describe_waiting([first])
    deadline = time.monotonic() + 60
    while "have a process" not in text and time.monotonic() < deadline:
        time.sleep(0.1)
        text = describe_waiting([first])
    second: Any = Loading.remote(str(gate))
    text = describe_waiting([first, second])
    assert text.startswith("1 wait for a place in the cluster; 1 have a process and load the model; here ")
    assert re.search(r"[\d.]+ processes want its \d+ cores", text)
    gate.touch()
    log = Path(re.search(r"logs: (\S+)", text)[1])
    assert str(ray.get(first.answer.remote())) in log.name
    assert log.is_file()
