"""Who is ended for its silence or its waiting, and who is said to wait for whom. No Ray: the beats are written here."""

from __future__ import annotations

from typing import Any

import pytest

from proxmo_rllib import activity, pulse
from proxmo_rllib.faults import Cause, FaultLog
from proxmo_rllib.orchestration import watch as module
from proxmo_rllib.orchestration.watch import Part, Watch

SILENCE_S = 30.0


class Handle:
    """Of an actor, by its name."""

    def __init__(self, name: str) -> None:
        self._actor_id = self
        self.name = name

    def hex(self) -> str:
        return self.name


class Hospital:
    """Parts with their newest beats, and who was ended."""

    def __init__(self, *names: str) -> None:
        self.beats: dict[str, pulse.Beat | None] = dict.fromkeys(names)
        self.dead: set[str] = set()
        self.ended: list[str] = []
        self.faults = FaultLog()
        self.watch = Watch(self.parts, self.faults, SILENCE_S)

    def parts(self) -> list[Part]:
        return [Part(name, Handle(name)) for name in self.beats]

    def beat(self, name: str, number: int, *waits: pulse.Wait, progress: int = 0, pid: int = 1) -> None:
        self.beats[name] = pulse.Beat(pid, number, progress, waits)

    def look(self, now: float) -> None:
        self.watch._look(now)


@pytest.fixture
def hospital(monkeypatch: pytest.MonkeyPatch) -> Hospital:
    here = Hospital("environment runner 1", "engine 0")
    monkeypatch.setattr(pulse, "last_beat", here.beats.get)
    monkeypatch.setattr(pulse, "present", lambda number=0: pulse.Beat(0, 0, 0))
    monkeypatch.setattr(module, "is_alive_as", lambda actor, pid: actor not in here.dead)
    monkeypatch.setattr(module, "end_actor", lambda handle, restart: here.ended.append(handle.name))
    monkeypatch.setattr(activity, "_present", activity.Phase("playing", 8, 0.0))
    return here


def test_a_part_is_ended_once_when_it_gives_no_sign_of_life(hospital: Hospital):
    hospital.beat("engine 0", 1)
    for now in (0.0, 10.0, 29.0):
        hospital.look(now)
    assert hospital.ended == []
    for now in (31.0, 33.0, 90.0):
        hospital.look(now)
    assert hospital.ended == ["engine 0"]
    assert hospital.faults.causes["engine 0"] == Cause("it has given no sign of life for 31 s")


def test_one_that_beats_is_left_alone_whatever_it_waits_for(hospital: Hospital):
    for now in range(0, 300, 10):
        hospital.beat("engine 0", now, pulse.Wait("a slow pass", 1, 1000.0))
        hospital.look(float(now))
    assert hospital.ended == []


def test_one_that_waits_beyond_its_limit_is_ended_and_the_reason_kept(hospital: Hospital):
    hospital.beat("environment runner 1", 1, pulse.Wait("the environment's step", 1, 61.0, 60.0, "of task 'x'"))
    hospital.look(0.0)
    assert hospital.ended == ["environment runner 1"]
    assert hospital.faults.causes == {
        "environment runner 1": Cause(
            "it has waited for the environment's step of task 'x' for 61 s", detail="of task 'x'"
        )
    }


def test_one_that_is_dead_already_or_being_started_is_nobodys_to_end(hospital: Hospital):
    """A kill would hit the process that Ray starts in its place."""
    hospital.beat("engine 0", 1)
    hospital.dead.add("engine 0")
    for now in (0.0, 100.0):
        hospital.look(now)
    assert hospital.ended == []


def test_a_new_process_of_the_same_actor_is_watched_anew(hospital: Hospital):
    hospital.beat("engine 0", 1)
    hospital.look(0.0)
    hospital.look(31.0)
    hospital.beat("engine 0", 0, pid=2)
    hospital.look(33.0)
    hospital.look(62.0)
    assert hospital.ended == ["engine 0"]
    hospital.look(64.0)
    assert hospital.ended == ["engine 0", "engine 0"]


def test_a_stall_says_who_waits_for_whom_after_30_s_and_then_less_and_less_often(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
):
    for now in range(0, 130, 2):
        since = float(now)
        hospital.beat("environment runner 1", now, pulse.Wait("engine 0", 64, since), pulse.Wait("all else", 1, 1.0))
        hospital.beat("engine 0", now, pulse.Wait("its engine's process", 1, since % 4))
        hospital.look(since)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"Nothing has got done for {now} s while playing: environment runner 1 waits for engine 0 for {now} s (64 of "
        "them)."
        for now in (30, 60, 120)
    ]
    assert hospital.faults.counts["stall"] == 3


def test_progress_of_anybody_is_no_stall(hospital: Hospital):
    for now in range(0, 300, 2):
        hospital.beat("environment runner 1", now, pulse.Wait("engine 0", 1, 5.0))
        hospital.beat("engine 0", now, progress=now // 20)
        hospital.look(float(now))
    assert hospital.faults.counts["stall"] == 0


def test_while_processes_start_nothing_is_expected(hospital: Hospital, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(activity, "_present", activity.Phase("waiting for the engines", 0, 0.0, expects_progress=False))
    for now in range(0, 100, 2):
        hospital.beat("engine 0", now)
        hospital.look(float(now))
    assert hospital.faults.counts["stall"] == 0


def test_a_silent_one_is_named_as_silent_and_not_by_what_it_last_waited_for(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
):
    hospital.beat("engine 0", 1, pulse.Wait("nothing of interest", 1, 100.0))
    for now in range(0, 30, 2):
        hospital.beat("environment runner 1", now, pulse.Wait("engine 0", 2, float(now)))
        hospital.look(float(now))
    hospital.beat("environment runner 1", 99, pulse.Wait("engine 0", 2, 30.0))
    hospital.look(30.0)
    assert (
        "engine 0 gives no sign of life; environment runner 1 waits for engine 0 for 30 s (2 of them)." in caplog.text
    )
    assert "nothing of interest" not in caplog.text


def test_what_ray_does_not_answer_is_no_reason_to_stop_watching(hospital: Hospital, monkeypatch: Any):
    """The thread goes on."""
    looked: list[float] = []

    def look(now: float) -> None:
        looked.append(now)
        if len(looked) == 2:
            hospital.watch.stop()
        raise ConnectionError("the store does not answer")

    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(hospital.watch, "_look", look)
    hospital.watch.start()
    hospital.watch._thread.join(10)
    assert len(looked) == 2
