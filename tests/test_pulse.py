"""Signs of life: what is waited for, by how many, since when, and when that is too long."""

from __future__ import annotations

import logging
import math
import os
import queue
import signal
import subprocess
import sys
import time

import pytest

from proxmo_rllib import pulse
from proxmo_rllib.faults import KINDS, FaultLog


def test_waits_of_one_name_are_counted_together_and_the_longest_is_first():
    with pulse.waiting("engine 0", detail="of task 'a'"):
        time.sleep(0.02)
        with pulse.waiting("engine 0", detail="of task 'b'"), pulse.waiting("the environment's step", 5.0):
            waits = pulse.present().waits
    assert [(wait.whom, wait.count, wait.detail) for wait in waits] == [
        ("engine 0", 2, "of task 'a'"),
        ("the environment's step", 1, ""),
    ]
    assert waits[0].seconds > waits[1].seconds
    assert pulse.present().waits == ()


def test_a_wait_ends_when_it_raises():
    with pytest.raises(KeyError), pulse.waiting("engine 0"):
        raise KeyError
    assert pulse.present().waits == ()


def test_a_beat_travels_as_it_is():
    with pulse.waiting("engine 0"), pulse.waiting("the environment's reset", 60.0, "of task 'x'"):
        beat = pulse.present(7)
    assert pulse._unpacked(pulse._packed(beat)) == beat
    assert {wait.limit_s for wait in beat.waits} == {math.inf, 60.0}


def test_only_a_wait_beyond_its_limit_is_a_reason_to_replace():
    within, beyond = pulse.Wait("engine 0", 3, 1e6), pulse.Wait("the environment's step", 1, 61.0, 60.0, "of task 'x'")
    assert pulse.Beat(1, 1, 1, (within,)).stuck() is None
    assert pulse.Beat(1, 1, 1, (within, beyond)).stuck() is beyond
    assert str(beyond) == "the environment's step of task 'x' for 61 s"


def test_progress_counts_what_got_done():
    before = pulse.present().progress
    pulse.tick()
    pulse.tick()
    assert pulse.present().progress == before + 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_stopped_child_is_seen_and_no_more_when_it_goes_on():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    heart = pulse.Heartbeat(45.0)  # no actor here: it only looks when it is told to
    try:
        assert child.pid in pulse.present().children
        heart._look_at_children()
        assert pulse.present().waits == ()
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        heart._look_at_children()
        (wait,) = pulse.present().waits
        assert wait.whom == f"its process {child.pid}, which is stopped (SIGSTOP),"
        assert wait.limit_s == 45.0
        child.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        heart._look_at_children()
        assert pulse.present().waits == ()
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_a_child_has_started_belongs_to_the_family_and_where_it_is_told_to_it_is_seen_stopped():
    """vLLM's workers are children of its EngineCore."""
    start = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'input()']); print(c.pid, flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{start}; c.wait()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    of_an_environment, of_an_engine = pulse.Heartbeat(45.0), pulse.Heartbeat(45.0, grandchildren=True)
    try:
        assert {child.pid, grandchild} <= set(pulse.present().children)
        os.kill(grandchild, signal.SIGSTOP)
        while not pulse._is_stopped(grandchild):
            pass
        of_an_environment._look_at_children()
        assert pulse.present().waits == ()
        of_an_engine._look_at_children()
        (wait,) = pulse.present().waits
        assert wait.whom == f"its process {grandchild}, which is stopped (SIGSTOP),"
        os.kill(grandchild, signal.SIGKILL)
        child.wait()
        of_an_engine._look_at_children()
        assert pulse.present().waits == ()
    finally:
        child.kill()
        child.wait()


def test_what_does_not_return_is_named_while_it_does_not():
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.put(record.getMessage())

    handler = Handler()
    logging.getLogger("proxmo_rllib.pulse").addHandler(handler)
    with pulse.said_while_waiting("MyEnv, making it", every_s=0.01):
        assert said.get(timeout=10) == "MyEnv, making it: it has not returned for 0 s."
    logging.getLogger("proxmo_rllib.pulse").removeHandler(handler)


def test_faults_are_one_line_each_and_counted_by_iteration(caplog: pytest.LogCaptureFixture):
    faults = FaultLog()
    faults.report("engine_replaced", "Engine 0 is replaced: it died.\nA dump\nof many lines.")
    faults.report("group_replayed", "4 groups are played again.", 4)
    assert [record.getMessage() for record in caplog.records] == [
        "Engine 0 is replaced: it died. A dump of many lines.",
        "4 groups are played again.",
    ]
    assert faults.since_last() == dict.fromkeys((f"num_{kind}" for kind in KINDS), 0) | {
        "num_engine_replaced": 1,
        "num_group_replayed": 4,
    }
    assert set(faults.since_last().values()) == {0}
    with pytest.raises(ValueError, match="kind='flood': faults are of engine_replaced"):
        faults.report("flood", "")
