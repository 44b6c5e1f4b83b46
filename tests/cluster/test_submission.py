"""A real Ray head on loopback takes jobs from `proxmo submit`, with Ray's token authentication on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

# By its path: pytest imports tests without packages around them.
_spec = importlib.util.spec_from_file_location("cluster_conftest", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = conftest  # dataclasses look their module up
_spec.loader.exec_module(conftest)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder whose `proxmo_rllib.cli train` says what it was given and ends as told."""
    package = tmp_path / "proxmo_rllib" / "cli"
    package.mkdir(parents=True)
    (tmp_path / "proxmo_rllib" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, sys\n"
        "print('trained', *sys.argv[1:], 'with', os.environ['FLAVOUR'], 'beside', sorted(os.listdir('.')))\n"
        "sys.exit(int(sys.argv[-1].split('=')[1]))\n"
    )
    (tmp_path / "x.py").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "checkpoint").touch()
    return tmp_path


def test_the_job_gets_the_code_the_settings_and_the_variables(cluster, checkout):
    done = cluster.submit("--folder", str(checkout), "--env", "FLAVOUR=plain", "x.py", "seed=1", "status=0")
    assert done.returncode == 0, done.stdout + done.stderr + cluster.log.read_text()
    assert "trained train x.py seed=1 status=0 with plain beside ['proxmo_rllib', 'x.py']" in done.stdout
    assert "SUCCEEDED" in done.stdout


def test_a_job_that_fails_is_not_taken_for_a_success(cluster, checkout):
    done = cluster.submit("--folder", str(checkout), "--env", "FLAVOUR=plain", "x.py", "status=3")
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_without_the_token_it_says_where_to_get_it(cluster, checkout, tmp_path):
    stranger = replace(cluster, environment=cluster.environment | {"HOME": str(tmp_path)})
    done = stranger.submit("--folder", str(checkout), "x.py")
    assert done.returncode == 1
    assert "auth_token" in done.stderr, done.stderr


def test_a_training_that_the_cluster_can_never_carry_ends_within_a_minute_with_what_is_missing(cluster, repository):
    """`ray start` runs a monitor without an autoscaler: it is not taken for one."""
    done = cluster.submit("--folder", str(repository), "tuned_examples/quickstart.py", "num_engines=9")
    assert done.returncode == 1
    assert "The run reserves 5 CPU: 10 x (0.5 CPU), and all nodes together have 4 CPU" in done.stdout, done.stdout
    assert "FAILED" in done.stdout


def test_an_agent_whose_port_is_taken_is_named_with_rays_own_reason(checkout, monkeypatch):
    """Such a head answers, and never takes a job."""
    folder = Path(tempfile.mkdtemp(prefix="pxa", dir="/tmp"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_A")}
    environment |= {"HOME": str(folder)}
    subprocess.run([conftest.RAY, "get-auth-token", "--generate"], check=True, env=environment, capture_output=True)
    with contextlib.ExitStack() as last:
        last.callback(shutil.rmtree, folder, ignore_errors=True)
        free_ports = conftest.free_ports

        def one_of_them_taken(count: int) -> list[int]:
            ports = free_ports(count)
            last.enter_context(socket.create_server(("0.0.0.0", ports[3])))  # the agent's
            return ports

        monkeypatch.setattr(conftest, "free_ports", one_of_them_taken)
        head, dashboard = conftest.start_head(folder, folder / "head.log", environment)
        last.callback(conftest.stop_head, head)
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in (folder / "head.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.5)
        cluster = conftest.Cluster(f"http://127.0.0.1:{dashboard}", environment, folder / "head.log")
        done = cluster.submit("--folder", str(checkout), "x.py")
    assert done.returncode == 1
    assert "its job agent broke: OSError" in done.stderr, done.stdout + done.stderr
    assert "address already in use" in done.stderr
    assert "--dashboard-agent-listen-port" in done.stderr


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """A tiny random model with a tokenizer of what the quickstart's environment says."""
    import gymnasium

    from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
    from tuned_examples.quickstart_world import ENV, ENV_CONFIG

    env = gymnasium.make(ENV, **ENV_CONFIG)
    texts = []
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        texts += [observation, *info["admissible_actions"]]
    folder = tmp_path_factory.mktemp("policy")
    size = TinySize(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
    build_tiny_policy(folder, train_tokenizer([[text] for text in texts], vocab_size=600), size)
    return folder


@pytest.mark.smoke
def test_a_training_that_was_submitted_leaves_metrics_and_a_checkpoint(cluster, repository, policy, tmp_path):
    run = tmp_path / "run"
    done = cluster.submit(
        *(
            "--folder",
            str(repository),
            "tuned_examples/quickstart.py",
            f"pretrained={policy}",
            "panel=none",
            "evaluation_interval=none",
        ),
        *("num_groups=2", "group_size=2", "max_turns=3", "max_num_seqs=4", "num_minibatches=1"),
        *("--iterations", "2", "--run-dir", str(run)),
    )
    assert done.returncode == 0, done.stdout + done.stderr + cluster.log.read_text()
    assert "SUCCEEDED" in done.stdout
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in metrics] == [1, 2]
    checkpoints = list((run / "checkpoints").iterdir())
    assert checkpoints
    assert any(checkpoint.rglob("*.safetensors") for checkpoint in checkpoints)
