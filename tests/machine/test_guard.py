"""The guard of a run, with real processes: whatever hangs, stops or dies, nothing of it is left, and it is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from proxmo_rllib.machine import guard_process

RUN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from proxmo_rllib.cli.interruption import Interruption
from proxmo_rllib.machine import guard as module
from proxmo_rllib.machine.guard import Guard

folder, mode = Path(sys.argv[1]), sys.argv[2]
module.IMPATIENT_S = 1.0
STUBBORN = (
    "import os, signal, subprocess, sys, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen(['sleep', '1000']); print(child.pid, flush=True); time.sleep(1000)"
)
with_us = "import ctypes, signal, time; ctypes.CDLL(None).prctl(1, signal.SIGKILL); time.sleep(1000)"
vital = subprocess.Popen([sys.executable, "-c", with_us])  # as Ray's processes
worker = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
pids = [os.getpid(), vital.pid, worker.pid, int(worker.stdout.readline())]
os.kill(worker.pid, signal.SIGSTOP)


def ready():
    (folder / "pids.part").write_text(" ".join(map(str, pids)))
    (folder / "pids.part").rename(folder / "pids")


def hang():
    while True:
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            pass  # as code of others may


with Guard(1, folder / "log.txt", folder / "latest", "go on with: this") as guard:
    with Interruption(lambda text: print(text, flush=True), guard) as interruption:
        guard._tell(own={"raylet": vital.pid})
        if mode != "impatient":
            interruption.be_patient()
        if mode == "hang" or mode == "impatient":
            ready()
            hang()
        if mode == "holds the lock":
            ready()
            sum(range(10**12))  # C, in which Python handles no signal
        if mode == "stopping hangs":
            guard.outcome('{"iterations": 3}', 0)
            ready()
            with guard.deadline("stopping engines", 0.5):
                hang()
        if mode == "ends":
            with guard.deadline("stopping engines", 30):
                vital.kill()
                vital.wait()
                time.sleep(0.2)
            worker.kill()
            os.kill(pids[-1], signal.SIGKILL)
            ready()
assert signal.set_wakeup_fd(-1) == -1
print("at the end")
"""


@pytest.fixture
def start(tmp_path):
    """Starts a run in a mode; gives its process and the ids of all of its processes."""
    runs = []

    def begin(mode, checkpoint=True):
        if checkpoint:
            (tmp_path / "latest").touch()
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        runs.append(run)
        while not (tmp_path / "pids").exists():
            assert run.poll() is None, run.stdout.read()
            time.sleep(0.02)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        return run, [*pids, *guards_of(run)]

    yield begin
    for run in runs:
        run.kill()
    if (tmp_path / "pids").exists():
        for pid in alive([int(pid) for pid in (tmp_path / "pids").read_text().split()]):
            os.kill(pid, signal.SIGKILL)


def guards_of(run):
    try:
        children = psutil.Process(run.pid).children()
        return [child.pid for child in children if "guard_process" in str(child.cmdline())]
    except psutil.Error:  # it is over already
        return []


def alive(pids):
    left = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                left.append(pid)
        except psutil.NoSuchProcess:
            continue
    return left


def everything_ends(run, pids, within_s):
    """What was said until the last of them was gone."""
    began = time.monotonic()
    said, _ = run.communicate(timeout=20)  # the guard holds the terminal until it is done
    while left := alive(pids):
        assert time.monotonic() - began < within_s, left
    assert time.monotonic() - began < within_s
    return said


@pytest.mark.parametrize("mode", ["hang", "holds the lock"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_everything_within_five_seconds(start, tmp_path, mode, number):
    run, pids = start(mode)
    run.send_signal(number)
    time.sleep(0.2)  # two at once count as one
    assert run.poll() is None
    run.send_signal(number)
    said = everything_ends(run, pids, within_s=5)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert said.splitlines()[-2:] == [f"stopped at once ({name})", "go on with: this"]
    assert said.count("stopped at once") == 1
    assert run.returncode == (130 if mode == "hang" else -signal.SIGKILL)
    assert f"stopped at once ({name})" in (tmp_path / "log.txt").read_text()


def test_before_there_is_anything_to_save_the_first_signal_cannot_hang(start):
    run, pids = start("impatient", checkpoint=False)
    run.send_signal(signal.SIGTERM)
    said = everything_ends(run, pids, within_s=5)
    assert "stopping took more than 1 s: what was left of the run was killed" in said
    assert "there is no checkpoint to go on from" in said
    assert run.returncode == 130


def test_an_orderly_end_has_a_deadline_and_the_runs_outcome_is_not_lost(start):
    run, pids = start("stopping hangs")
    said = everything_ends(run, pids, within_s=5)
    assert "stopping engines took more than 0 s" in said
    assert said.splitlines()[-1] == '{"iterations": 3}'
    assert run.returncode == 0


def test_a_run_that_is_killed_leaves_no_process_and_no_silence(start):
    run, pids = start("hang")
    run.kill()
    said = everything_ends(run, pids, within_s=5)
    assert f"the run's own process ({run.pid}) ended without a word" in said
    assert said.splitlines()[-1] == "go on with: this"


def test_the_death_of_a_vital_process_is_said_and_ends_the_run(start):
    run, pids = start("hang")
    os.kill(pids[1], signal.SIGKILL)
    said = everything_ends(run, pids, within_s=5)
    assert f"Ray's raylet (process {pids[1]}) died, and the run with it" in said
    assert run.returncode == 1


def test_an_end_in_order_says_nothing(start):
    run, pids = start("ends")
    assert everything_ends(run, pids, within_s=5) == "at the end\n"
    assert run.returncode == 0


def test_a_run_goes_on_without_its_guard(start):
    run, pids = start("hang")
    os.kill(pids[-1], signal.SIGKILL)
    run.send_signal(signal.SIGINT)
    while "saving and stopping" not in run.stdout.readline():
        pass
    assert run.poll() is None
    for pid in pids[:-1]:
        os.kill(pid, signal.SIGKILL)


def test_a_vital_process_that_is_stopped_is_said_after_a_while_and_one_that_goes_on_is_not(monkeypatch):
    vital = subprocess.Popen(["sleep", "1000"])
    try:
        guard = object.__new__(guard_process.Guard)
        guard._run = psutil.Process()
        guard._own, guard._vital, guard._stopped = {"gcs_server": vital.pid}, {vital.pid: psutil.Process(vital.pid)}, {}
        vital.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, vital.pid, os.WSTOPPED | os.WNOWAIT)
        assert guard._dead() is None
        monkeypatch.setattr(guard_process, "_STOPPED_S", 0.0)
        assert (
            guard._dead() == f"Ray's gcs_server (process {vital.pid}) was stopped (SIGSTOP) and did not go on for 0 s"
        )
        vital.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, vital.pid, os.WCONTINUED)
        assert guard._dead() is None
        assert guard._stopped == {}
    finally:
        vital.kill()
        vital.wait()
