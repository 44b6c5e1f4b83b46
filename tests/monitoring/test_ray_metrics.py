"""A run's numbers among Ray's metrics, scraped as Prometheus does it; tests/cluster does it on a cluster."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest
import ray

from proxmo_rllib.monitoring.ray_metrics import GAUGES, RayMetrics
from proxmo_rllib.training_run.progress import Progress

RESULT = {
    "training_iteration": 3,
    "env_runners": {
        "num_successes": 3, "num_episodes": 4, "episode_return_mean": 1.5, "num_errors": 1, "num_response_tokens": 200,
    },
    "learners": {"default_policy": {"num_tokens_trained": 900}},
    "timers": {"env_runner_sampling_timer": 2.0, "learner_update_timer": 3.0, "synch_weights": 0.5},
    "policy_version": 12,
    "evaluation": {"success_rate": 0.25, "num_episodes": 8, "seconds": 1.0},
}  # fmt: skip
SHOWN = {
    "proxmo_iteration": 3,
    "proxmo_success_rate": 0.75,
    "proxmo_episode_return": 1.5,
    "proxmo_episode_errors": 1,
    "proxmo_panel_success_rate": 0.25,
    "proxmo_iteration_seconds": 5.5,
    "proxmo_rollout_tokens_per_second": 100,
    "proxmo_learner_tokens_per_second": 300,
    "proxmo_policy_version": 12,
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_runs_numbers_are_read_from_the_nodes_port_of_metrics(local_ray):
    assert SHOWN.keys() == GAUGES.keys()
    metrics = RayMetrics("quick start")
    began = time.perf_counter()
    for _ in range(100):
        metrics.on_iteration(Progress.from_result(RESULT, 1.0), {}, [])
    assert time.perf_counter() - began < 1  # a hundred iterations
    (node,) = ray.nodes()
    deadline = time.monotonic() + 300
    found: dict[str, float] = {}
    while found != SHOWN and time.monotonic() < deadline:
        time.sleep(1)
        place = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(place, timeout=30) as answer:
            text = answer.read().decode()
        for name, tags, number in re.findall(r"^ray_(proxmo_\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
            assert 'run="quick start"' in tags
            found[name] = float(number)
    assert found == SHOWN
