"""Ray for a command, under guard; Ray itself is not started here."""

from __future__ import annotations

import signal

import pytest

from proxmo_rllib.cli import guarded
from proxmo_rllib.cli.session import quiet_terminal


def test_a_signal_ends_a_command_and_the_handlers_are_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(guarded, "start_ray", lambda address, request, **options: "this machine")
    before = signal.getsignal(signal.SIGTERM)
    log = tmp_path / "log.txt"

    def command(console):
        with guarded.guarded_ray(console, log, None, None) as (where, guard):
            assert where == "this machine"
            with guard.deadline("stopping the engines"):
                pass
            signal.raise_signal(signal.SIGTERM)

    with quiet_terminal(log) as console, pytest.raises(KeyboardInterrupt):
        command(console)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "killed" not in log.read_text()


def test_a_sigterm_that_ray_answers_while_it_starts_is_an_interruption(tmp_path, monkeypatch):
    def starting(address, request, **options):
        raise SystemExit(15)

    monkeypatch.setattr(guarded, "start_ray", starting)
    with (
        quiet_terminal(tmp_path / "log.txt") as console,
        pytest.raises(KeyboardInterrupt),
        guarded.guarded_ray(console, tmp_path / "log.txt", None, None),
    ):
        pass
