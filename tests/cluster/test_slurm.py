"""The Slurm script under a stand-in for Slurm, whose two nodes are addresses of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from proxmo_rllib.checkpoint_format import check_whole
from proxmo_rllib.cli import train

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")

# What of Slurm the script calls. `srun` runs its command here, and passes a signal on, as Slurm's does.
SLURM = {
    "scontrol": """if [[ $1 == show ]]; then printf 'node1\\nnode2\\n'; else echo "$@" >> requeued; fi""",
    "srun": """
        while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#--nodelist=}; shift; done
        if [[ $1 == hostname ]]; then echo "127.0.0.$((1 + ${node#node}))"; exit; fi
        trap 'kill -TERM "$pid" 2> /dev/null' TERM
        setsid "$@" &
        pid=$!
        echo "$pid" > "$node.pid"
        until wait "$pid"; status=$?; ! kill -0 "$pid" 2> /dev/null; do :; done
        exit "$status\"""",
}
# In the place of Ray and the training, where Slurm's part is looked at.
QUICK = {
    "python": "cat > /dev/null; echo token",
    "ray": "exec sleep 600",
    "proxmo": 'trap "exit 130" TERM; echo "$@" > started; until [[ -e done ]]; do sleep 0.05; done',
}


def write_programs(folder: Path, programs: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)


def variables(submitted_from: Path, programs: Path) -> dict[str, str]:
    return {
        "PATH": f"{programs}:/bin:/usr/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(submitted_from),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "2",
    }


@pytest.fixture
def started(repository, tmp_path) -> Iterator[object]:
    """Starts the script with everything but Slurm's part played, and waits until the training has begun."""
    write_programs(tmp_path / "programs", SLURM | QUICK)
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    jobs = []

    def start(**more: str) -> subprocess.Popen[str]:
        jobs.append(
            subprocess.Popen(
                ["bash", str(repository / "cluster" / "slurm.sh"), "x.py", "lr=1"],
                env=variables(tmp_path, tmp_path / "programs") | more,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        awaited = [tmp_path / name for name in ("started", "node1.pid", "node2.pid")]
        while not all(path.exists() and path.read_text().strip() for path in awaited):
            assert jobs[-1].poll() is None, jobs[-1].stdout.read()
        return jobs[-1]

    yield start
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    for path in tmp_path.glob("node*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def no_node_runs(folder: Path) -> bool:
    pids = [int(path.read_text()) for path in folder.glob("node*.pid")]
    assert len(pids) == 2
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_a_job_that_is_told_to_end_saves_and_queues_itself_again(started, tmp_path):
    job = started()
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 130
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    words = (tmp_path / "started").read_text().split()
    assert words[-2:] == ["x.py", "lr=1"]
    arguments = train.parse(words[1:])
    assert (arguments.auto_resume, arguments.run_dir, arguments.grace_period) == (True, Path("runs/slurm-7"), 100)
    assert no_node_runs(tmp_path)


def test_a_training_that_ends_takes_ray_down_on_all_nodes(started, tmp_path):
    job = started()
    (tmp_path / "done").touch()
    assert job.wait(timeout=60) == 0
    assert not (tmp_path / "requeued").exists()
    assert no_node_runs(tmp_path)


def test_a_node_that_is_lost_ends_the_training_and_the_job_goes_on_elsewhere(started, tmp_path):
    job = started()
    os.kill(int((tmp_path / "node2.pid").read_text()), signal.SIGKILL)
    assert job.wait(timeout=60) == 130
    assert "Ray has ended on node2: the training is told to save and to end" in job.stdout.read()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert no_node_runs(tmp_path)


def test_a_job_that_loses_its_nodes_again_and_again_ends(started, tmp_path):
    job = started(SLURM_RESTART_COUNT="3")
    os.kill(int((tmp_path / "node1.pid").read_text()), signal.SIGKILL)
    assert job.wait(timeout=60) == 1
    assert "not queued again" in job.stdout.read()
    assert not (tmp_path / "requeued").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_brings_two_ray_nodes_up_trains_on_both_and_takes_all_down(repository, quickstart_policy):
    """Ray, the training and all processes are real; the settings need the processors of both nodes."""
    folder = Path(tempfile.mkdtemp(prefix="pxs", dir="/tmp"))  # sockets need a short path
    write_programs(folder / "programs", SLURM)
    environment = os.environ | variables(repository, folder / "programs")
    environment |= {
        "PATH": f"{folder / 'programs'}:{os.environ['PATH']}",
        "VENV": sys.prefix,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_TMPDIR": str(folder),
        "SLURM_SUBMIT_DIR": str(folder),
        "PROXMO_RUNS": str(folder / "runs"),
        "PYTHONPATH": str(repository),
    }
    settings = [
        *(f"pretrained={quickstart_policy}", "panel=none", "evaluation_interval=none", "num_groups=2", "group_size=2"),
        *("max_turns=3", "max_num_seqs=4", "num_minibatches=1", "num_env_runners=2", "num_engines=2"),
        *("num_cpus_per_env_runner=1", "--iterations", "2"),
    ]
    command = [
        "bash",
        str(repository / "cluster/slurm.sh"),
        str(repository / "tuned_examples/quickstart.py"),
        *settings,
    ]
    before = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        run = folder / "runs" / f"slurm-{os.getpid()}"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["iteration"] for row in rows] == [1, 2]
        check_whole((run / "checkpoints" / "latest").resolve())
        assert "on the cluster at 127.0.0.2:" in done.stdout
        assert no_node_runs(folder)
        left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
        assert not left, left
    finally:
        for path in folder.glob("node*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.monotonic() - before:.0f} s")
