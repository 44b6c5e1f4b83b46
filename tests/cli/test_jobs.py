"""`proxmo jobs` shows, stops and fetches; tests/cluster does it with a real Ray."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from proxmo_rllib.cli import jobs, main, submit


def test_a_job_is_shown_by_what_it_trains():
    command = submit.entrypoint("tuned_examples/x.py", ["seed=1", "--iterations", "2"])
    assert jobs.what(command) == "tuned_examples/x.py seed=1 --iterations 2"
    assert jobs.what(submit.entrypoint("x.py", ["lr=1"], "_ray_pkg_1.zip")) == "x.py lr=1"
    assert jobs.what("echo hello\nworld") == "echo hello"


def job(name, status, message=None, started=1_700_000_000_000):
    return SimpleNamespace(
        submission_id=name,
        status=SimpleNamespace(value=status),
        start_time=started,
        end_time=started + 90_000,
        entrypoint=submit.entrypoint("x.py", [f"seed={len(name)}"]),
        message=message,
        runtime_env={"env_vars": {"KEY": "hush"}},
    )


@pytest.fixture
def server(monkeypatch):
    failed = "Job entrypoint command failed with exit code 1, last available logs:\nproxmo train: lr=x is bad"
    listed = [job("later", "FAILED", failed, 1_700_000_100_000), job("a", "SUCCEEDED")]
    client = SimpleNamespace(
        list_jobs=lambda: listed, get_job_logs=lambda name: f"log of {name}\n", get_job_status=lambda name: "FAILED"
    )
    monkeypatch.setattr(jobs, "connect", lambda said: (client, "http://c:1"))
    return client


def test_jobs_are_listed_by_age_with_why_they_failed_and_nothing_secret(server, capsys):
    assert main(["jobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["job", "status", "began", "minutes", "what"]
    assert lines[1].split()[:2] == ["a", "SUCCEEDED"]
    assert lines[1].split()[-3:] == ["1.5", "x.py", "seed=1"]
    assert lines[2].split()[:2] == ["later", "FAILED"]
    assert lines[3] == "later failed: exit status 1: proxmo train: lr=x is bad"
    assert "hush" not in "".join(lines)


def test_a_log_is_printed_and_a_job_that_is_not_there_is_named(server, capsys):
    assert main(["jobs", "logs", "a"]) == 0
    assert capsys.readouterr().out == "log of a\n"
    assert main(["jobs", "stop", "b"]) == 1
    assert "proxmo jobs: b: http://c:1 has no such job; `proxmo jobs` lists them" in capsys.readouterr().err
    assert main(["jobs", "fetch", "a"]) == 1
    assert "its log names no run folder" in capsys.readouterr().err


def test_the_address_may_stand_before_or_behind_what_is_to_be_done():
    assert jobs.parse(["--address", "http://c:1"]).address == "http://c:1"
    assert jobs.parse(["stop", "a", "--address", "http://c:1"]).address == "http://c:1"
    assert jobs.parse(["--address", "http://c:1", "stop", "a"]).address == "http://c:1"


def test_a_cluster_that_is_not_there_is_named(capsys, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["jobs", "--address", address]) == 1
    assert address in capsys.readouterr().err
