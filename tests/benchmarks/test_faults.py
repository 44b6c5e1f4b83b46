"""The fault table: that it measures what it says. Its statistics, its verdict, its processes; and one real kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import table, trials
from benchmarks.faults.environments import BROKEN_TASK, FAULTS, FaultyEnv
from benchmarks.faults.kinds import PHASES, all_faults
from benchmarks.faults.trials import Trial, numbering, statistics_against_episodes, words_of_an_end

REPOSITORY = Path(__file__).resolve().parents[2]


def episode(iteration: int, name: str, status: str, reward: float = 0.0):
    return {"iteration": iteration, "episode": name, "status": status, "return": reward, "turns": [{}, {}]}


def row(iteration: int, successes: int, episodes: int, errors: int = 0, **changes: float):
    numbers = {
        "num_episodes": episodes,
        "num_successes": successes,
        "num_errors": errors,
        "success_rate": successes / episodes,
        "episode_return_mean": successes / episodes,
        "episode_len_mean": 2.0,
    }
    return {"iteration": iteration} | {f"env_runners/{key}": value for key, value in (numbers | changes).items()}


def played(successes: int, failures: int, errors: int = 0):
    kinds = [("success", 1.0)] * successes + [("failure", 0.0)] * failures + [("error", 0.0)] * errors
    return [episode(1, f"e{index}", status, reward) for index, (status, reward) in enumerate(kinds)]


def test_numbers_that_are_the_episodes_own_pass():
    assert statistics_against_episodes([row(1, 10, 16)], played(10, 6)) == []
    assert statistics_against_episodes([row(1, 3, 8, errors=4)], played(3, 5, errors=4)) == []


@pytest.mark.parametrize("key", ["success_rate", "episode_return_mean", "num_episodes", "num_errors"])
def test_a_mean_of_means_and_a_wrong_count_are_found(key):
    found = statistics_against_episodes([row(1, 10, 16, **{key: 0.417})], played(10, 6))
    assert len(found) == 1
    assert key in found[0]


def test_a_group_that_is_recorded_twice_is_found():
    found = statistics_against_episodes([row(1, 2, 4)], [*played(1, 1), *played(1, 1)])
    assert found == ["iteration 1: 2 episodes are recorded twice"]


@pytest.mark.parametrize(("numbers", "right"), [([0, 1, 2], True), ([3, 4], True), ([1, 3], False), ([1, 1], False)])
def test_iterations_are_numbered_one_after_the_other(numbers, right):
    assert (numbering([{"iteration": number} for number in numbers]) == []) is right


@pytest.mark.parametrize(
    ("code", "said", "right"),
    [
        (1, ["proxmo train: RuntimeError: the learner died"], True),
        (130, ["stopped at once"], True),
        (1, ["Traceback (most recent call last):", "proxmo train: KeyError"], False),
        (-9, [], False),
        (1, ["[2026-01-02] core_worker.cc:1: GCS is down"], False),
    ],
)
def test_an_end_in_words_is_told_from_a_crash(code, said, right):
    assert words_of_an_end(code, said) is right


def some_trials():
    return [
        Trial(
            "runner SIGKILL", 0, trials.RECOVERED, seconds=2.0, start_s=9.0, said=["warning: 2 groups | again"], lines=1
        ),
        Trial("runner SIGKILL", 1, trials.RECOVERED, seconds=4.0, start_s=9.0),
        Trial("engine SIGKILL", 0, trials.RECOVERED, seconds=30.0, start_s=9.0),
        Trial("GCS SIGKILL", 0, trials.RESUMED, seconds=50.0, code=1),
    ]


def test_the_table_adds_up_the_parts_of_a_file(tmp_path):
    path = tmp_path / "faults.jsonl"
    for trial in some_trials():
        table.append(path, trial)
    found = table.read(path)
    assert [trial.as_json() for trial in found] == [trial.as_json() for trial in some_trials()]
    lines = table.as_markdown(found).splitlines()
    assert lines[2].startswith(
        "| runner SIGKILL | 2 | 2 recovered | 3.0, 4.0 (starts in 9) | nothing | warning: 2 groups \\|"
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| runner SIGKILL", "| engine SIGKILL", "| GCS SIGKILL"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.put_into(page, "new")
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="goes between"):
        table.put_into(path, "new")


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (Trial("runner SIGKILL", 0, trials.RECOVERED, seconds=2.0), None),
        (Trial("runner SIGKILL", 0, trials.HUNG, detail="no iteration for 150 s"), "no iteration for 150 s"),
        (Trial("runner SIGKILL", 0, trials.RESUMED), "resumed"),
        (Trial("GCS SIGKILL", 0, trials.RESUMED), None),
        (Trial("GCS SIGKILL", 0, trials.SILENT), "without words"),
        (Trial("GCS SIGKILL", 0, trials.RESUMED, lost_iterations=1), "1 iterations"),
        (Trial("runner SIGKILL", 0, trials.RECOVERED, dropped=1), "1 groups"),
        (Trial("env: raise", 0, trials.RECOVERED, dropped=3), None),
        (Trial("runner SIGKILL", 0, trials.WRONG, wrong=["iteration 3: success_rate"]), "success_rate"),
        (Trial("engine SIGKILL", 0, trials.RECOVERED, seconds=21.0, start_s=10.0), "starts in 10 s"),
        (Trial("engine SIGKILL", 0, trials.RECOVERED, seconds=19.0, start_s=10.0), None),
        (Trial("driver SIGKILL", 0, trials.RESUMED, leftovers=["processes: 1 x engine"]), "1 x engine"),
    ],
)
def test_what_is_beyond_the_bounds_is_said(trial, says):
    broken = table.broken_bounds([trial])
    assert len(broken) == (says is not None)
    assert says is None or says in broken[0]


def test_the_table_has_every_fault_that_it_should():
    names = set(all_faults())
    parts = ("runner", "engine", "EngineCore", "learner, one", "learner, two", "GCS", "raylet")
    assert {f"{part} {sign}" for part in parts for sign in ("SIGKILL", "SIGSTOP")} <= names
    assert {
        f"node of two {sign}, {whether} joins" for sign in ("SIGKILL", "SIGSTOP") for whether in ("another", "none")
    } <= names
    assert {f"SIGTERM {count} in {phase}" for phase in PHASES for count in ("once", "twice")} <= names
    assert {f"env: {fault}" for fault in FAULTS} <= names
    assert all(
        fault.trials >= 20
        for name, fault in all_faults().items()
        if name.endswith(("SIGKILL", "SIGSTOP", "another joins"))
    )


@pytest.mark.parametrize("fault", [name for name in FAULTS if not name.startswith("hang") and name != "os-exit"])
def test_a_fault_happens_in_one_task_alone(fault):
    env = FaultyEnv(fault, step_s=0.0)
    env.reset(options={"task": "train-0"})
    assert [env.step("wait")[2] for _ in range(4)] == [False, False, False, True]
    env.reset(options={"task": BROKEN_TASK})
    plain = env.step("wait")
    try:
        broken = env.step("wait")
    except (KeyError, SystemExit):
        return
    assert plain == ("Nothing happens. You waited 1 times.", 0.0, False, False, plain[4])
    if fault != "leak":  # which is seen in memory only
        assert broken[:4] != ("Nothing happens. You waited 2 times.", 0.0, False, False) or len(broken) != 5


ORPHANS = """
import os, subprocess, sys, time
from benchmarks.faults import processes
processes.adopt_orphans()
# A child that starts another in a session of its own, and is killed.
nothing = subprocess.DEVNULL
child = subprocess.Popen(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], stdout=nothing, stderr=nothing)
while [process.cmdline() for process in processes.living()] != [["sleep", "1000"]] * 2:
    time.sleep(0.01)
child.kill()
child.wait()
left = processes.living()
assert [process.cmdline() for process in left] == [["sleep", "1000"]], left
assert left[0].ppid() == os.getpid()
left[0].suspend()
processes.end_all()
assert processes.living() == []
print(left[0].pid)
"""


def test_what_a_killed_parent_leaves_is_found_and_ended(repository):
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not Path(f"/proc/{int(done.stdout)}").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_runner_is_tried_in_a_real_run(tmp_path, repository):
    output = tmp_path / "faults.jsonl"
    command = [sys.executable, "-m", "benchmarks.faults", "--output", str(output), "--kinds", "runner SIGKILL"]
    done = subprocess.run(
        [*command, "--trials", "1", "--check"],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    (line,) = output.read_text().splitlines()
    trial = json.loads(line)
    assert trial["outcome"] == trials.RECOVERED
    assert trial["replaced_s"] < 60
    assert trial["leftovers"] == []
    assert "| runner SIGKILL | 1 | 1 recovered |" in done.stdout
