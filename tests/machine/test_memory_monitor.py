"""An actor that Ray's memory monitor ends is one that died: it is replaced, and does not end the run."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from proxmo_rllib.machine.actors import ACTOR_DEATHS, cause_of

WORDS = "Ray ended its process, since its machine ran out of memory"

#: Ray reads the threshold when its cluster starts, so this has one of its own: a gibibyte more than is in use now.
SCRIPT = """
import os, time
import psutil
memory = psutil.virtual_memory()
os.environ["RAY_memory_usage_threshold"] = str((memory.total - memory.available + (1 << 30)) / memory.total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"
import ray
from proxmo_rllib.inference.carriers import why_failed

@ray.remote(num_cpus=0)
class Hungry:
    def eat(self):
        eaten = []
        while True:
            eaten.append(os.urandom(64 << 20))
            time.sleep(0.02)

ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
print("why:", why_failed(Hungry.remote().eat.remote(), 120, "late"))
"""


def test_both_ways_in_which_ray_says_so_are_deaths() -> None:
    told = OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory on the node ...")
    assert isinstance(told, ACTOR_DEATHS)
    assert cause_of(told) == WORDS
    assert isinstance(ActorDiedError(), ACTOR_DEATHS)


@pytest.mark.slow
def test_an_actor_that_eats_all_memory_has_died_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False)
    assert f"why: {WORDS}" in done.stdout, done.stderr[-2000:]
