"""A run's processes get their share of a busy machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from proxmo_rllib.machine.processors import limit_threads, load_text, share_processors

NAMES = ("RAY_worker_niceness", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def test_what_the_user_set_stays():
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    share_processors(environment)
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment["RAY_worker_niceness"] == "0"


def test_a_script_has_them_as_soon_as_it_imports_the_package():
    script = "import json, os, proxmo_rllib; print(json.dumps(dict(os.environ)))"
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    seen = json.loads(ended.stdout)
    assert [seen[name] for name in NAMES] == ["0", "PASSIVE", "0"]


def test_the_load_is_said_in_words(monkeypatch):
    monkeypatch.setattr("proxmo_rllib.machine.processors.available_cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (4.2, 0, 0))
    assert load_text() == "4.2 processes want its 2 cores, more than there are: each waits for its turn"
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 0, 0))
    assert load_text() == "1.0 processes want its 2 cores"


def test_the_learners_threads_keep_to_a_containers_quota_and_to_what_the_user_said(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        monkeypatch.setattr("proxmo_rllib.machine.processors.available_cores", lambda: 2)
        limit_threads()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_processes_of_a_cluster_that_a_script_starts_are_as_nice_as_the_script():
    script = (
        "import os, proxmo_rllib, ray\n"
        "ray.init(num_cpus=1, include_dashboard=False, address='local', log_to_driver=False)\n"
        "print('nice', ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "nice 0" in ended.stdout
