"""A real Ray head with a second node, on loopback, takes jobs from `proxmo submit`; it wants Ray's token."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from proxmo_rllib.checkpoint_format import check_whole

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
    assert "FAILED, exit status 3: trained train x.py status=3" in done.stdout


def test_a_secret_reaches_the_training_and_no_list_of_jobs(cluster, repository, tmp_path):
    (tmp_path / "x.py").write_text("import os, sys\nsys.exit('it ' + os.environ.get('WANDB_API_KEY', 'lost')[:3])\n")
    for part in ("proxmo_rllib", "env_wrappers"):
        (tmp_path / part).symlink_to(repository / part)
    knowing = replace(cluster, environment=cluster.environment | {"WANDB_API_KEY": "012secret4567"})
    done = knowing.submit("--folder", str(tmp_path), "--secret", "WANDB_API_KEY", "x.py")
    assert "it 012" in done.stdout, done.stdout + done.stderr
    code = (
        "from ray.job_submission import JobSubmissionClient as C; import sys\n"
        "c = C(sys.argv[1]); print(c.list_jobs(), [c.get_job_logs(j.submission_id) for j in c.list_jobs()])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, cluster.address],
        env=cluster.environment | {"RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "proxmo_rllib.jobs.secrets" in shown.stdout
    for text in (shown.stdout, done.stdout, done.stderr):
        assert "012secret4567" not in text


def test_a_job_is_listed_stopped_and_its_log_read(cluster, tmp_path):
    package = tmp_path / "proxmo_rllib" / "cli"
    package.mkdir(parents=True)
    (tmp_path / "proxmo_rllib" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5), print('saved'), sys.exit(130)))\n"
        "print('run folder: /nowhere', flush=True)\ntime.sleep(600)\n"
    )
    (tmp_path / "x.py").touch()
    begun = cluster.submit("--folder", str(tmp_path), "--no-follow", "--job-id", "mine", "x.py", "seed=3")
    assert begun.returncode == 0, begun.stderr
    assert re.search(r"^mine +(PENDING|RUNNING) .* x\.py seed=3", cluster.jobs("list").stdout, re.MULTILINE)
    while "run folder" not in cluster.jobs("logs", "mine").stdout:
        assert re.search("PENDING|RUNNING", cluster.jobs("list").stdout)
    lost = cluster.jobs("fetch", "mine")
    assert lost.returncode == 1
    assert "no such folder on the head node: /nowhere" in lost.stderr
    stopped = cluster.jobs("stop", "mine")
    assert stopped.stdout == "mine: STOPPED\n", stopped.stdout + stopped.stderr
    assert "saved" in cluster.jobs("logs", "mine").stdout  # Ray gives a job three seconds by itself
    unknown = cluster.jobs("stop", "yours")
    assert unknown.returncode == 1
    assert "has no such job; `proxmo jobs` lists them" in unknown.stderr


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
        head, dashboard, _ = conftest.start_head(folder, folder / "head.log", environment)
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


@pytest.mark.smoke
def test_a_training_that_was_submitted_is_brought_home_whole(cluster, repository, quickstart_policy, tmp_path):
    run = tmp_path / "run"
    done = cluster.submit(
        *(
            "--folder",
            str(repository),
            "tuned_examples/quickstart.py",
            f"pretrained={quickstart_policy}",
            "panel=none",
            "evaluation_interval=none",
        ),
        *("num_groups=2", "group_size=2", "max_turns=3", "max_num_seqs=4", "num_minibatches=1"),
        # A node has two processors, so these need both nodes.
        *("num_env_runners=2", "num_engines=2", "num_cpus_per_env_runner=1", "placement_strategy=SPREAD"),
        *("--iterations", "2", "--run-dir", str(run)),
    )
    assert done.returncode == 0, done.stdout + done.stderr + cluster.log.read_text()
    assert "SUCCEEDED" in done.stdout
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in metrics] == [1, 2]
    checkpoints = list((run / "checkpoints").iterdir())
    assert checkpoints
    assert any(checkpoint.rglob("*.safetensors") for checkpoint in checkpoints)
    job = re.search(r"submitted (\S+);", done.stdout)[1]
    home = tmp_path / "home"
    fetched = cluster.jobs("fetch", job, str(home))
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    assert (home / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()
    assert (home / "episodes.jsonl.gz").read_bytes() == (run / "episodes.jsonl.gz").read_bytes()
    check_whole((home / "checkpoints" / "latest").resolve())
    again = cluster.jobs("fetch", job, str(home))
    assert ": 0.0 MiB came" in again.stdout, again.stdout
    assert not list((Path(cluster.environment["HOME"]) / "ray").rglob("logs/proxmo-*"))  # the links are gone
    listed = cluster.jobs().stdout
    assert re.search(rf"{job} +SUCCEEDED", listed), listed


def test_a_training_is_watched_by_prometheus_and_the_dashboard_left_by_ctrl_c_and_stopped(
    cluster, repository, quickstart_policy, tmp_path
):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "proxmo_rllib.cli", "submit", "--address", cluster.address, "--job-id", "long"]
    words = (
        *("--folder", str(repository), "tuned_examples/quickstart.py", f"pretrained={quickstart_policy}"),
        *("panel=none", "evaluation_interval=none", "num_groups=2", "group_size=2", "max_turns=3", "max_num_seqs=4"),
        *("num_minibatches=1", "engine=transformers", "--iterations", "10000", "--run-dir", str(run)),
    )
    follower = subprocess.Popen([*command, *words], env=cluster.environment, stdout=subprocess.PIPE, text=True)
    for line in follower.stdout:
        if line.startswith("run folder:"):
            break
    follower.send_signal(signal.SIGINT)
    said, _ = follower.communicate(timeout=120)
    assert follower.returncode == 130
    assert "long goes on; see it with: proxmo jobs logs long --follow --address" in said
    token = (Path(cluster.environment["HOME"]) / ".ray" / "auth_token").read_text().strip()

    def ask(path: str, server: str = cluster.address) -> str:
        request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    found, deadline = "", time.monotonic() + 600
    while not found and time.monotonic() < deadline:
        time.sleep(1)
        for group in json.loads(ask("/api/prometheus/sd")):
            for place in group["targets"]:
                try:
                    text = ask("/metrics", f"http://{place}")
                except urllib.error.URLError:  # a place may be listed before it answers; Prometheus asks again too
                    continue
                found = found or next(iter(re.findall(r"^ray_proxmo_iteration\{.*$", text, re.MULTILINE)), "")
    assert 'run="run"' in found, found
    assert float(found.rpartition(" ")[2]) >= 1
    assert json.loads(ask("/api/jobs/long"))["status"] == "RUNNING"
    assert "<html" in ask("/").lower()
    stopped = cluster.jobs("stop", "long")
    assert "long: STOPPED" in stopped.stdout, stopped.stdout + stopped.stderr
    check_whole((run / "checkpoints" / "latest").resolve())  # it was given the time to save
    assert json.loads((run / "summary.json").read_text())["stopped"]
