"""`proxmo submit` sends the checkout with the settings, and says what is wrong before anything is sent."""

from __future__ import annotations

import shlex
import socket
import subprocess

import pytest

from proxmo_rllib.cli import main, submit


def test_settings_reach_the_command_as_they_were_typed():
    command = submit.entrypoint("tuned_examples/x.py", ["seed=1", "--iterations", "2", "rooms=('bath room',)"])
    assert shlex.split(command)[-6:] == [
        "train",
        "tuned_examples/x.py",
        "seed=1",
        "--iterations",
        "2",
        "rooms=('bath room',)",
    ]


@pytest.mark.parametrize("said", [None, "/mnt/runs"])
def test_runs_outlive_the_copy_of_the_checkout(said, tmp_path):
    environment = {"HOME": "/home/x", "PATH": str(tmp_path)} | ({submit.RUNS: said} if said else {})
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "${submit.RUNS}"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", submit.entrypoint("x.py", [])], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (said or "/home/x/proxmo_runs")


def test_variables_are_given_or_taken_from_here():
    assert submit.parse_variables(["A=1", "B"], {"B": "2"}) == {"A": "1", "B": "2"}
    with pytest.raises(ValueError, match="--env C: it is not set here"):
        submit.parse_variables(["C"], {})


def test_a_script_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["submit", "--folder", str(tmp_path), "none.py"])
    assert stopped.value.code == 2
    assert "none.py: no such file" in capsys.readouterr().err


def test_an_installed_example_need_not_lie_in_the_folder(tmp_path, capsys):
    assert submit.parse(["--folder", str(tmp_path), "quickstart", "seed=1"]).script == "quickstart"
    with pytest.raises(SystemExit):
        submit.parse(["--folder", str(tmp_path), "quikstart"])
    assert "quickstart_pbt, smollm2_135m_cpu, textcraft_cpu, webshop_cpu" in " ".join(capsys.readouterr().err.split())


def test_a_cluster_that_is_not_there_is_named_with_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    (tmp_path / "x.py").touch()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["submit", "--address", address, "--folder", str(tmp_path), "x.py"]) == 1
    said = capsys.readouterr().err
    assert address in said
    assert "ray start --head" in said


def test_secrets_are_named_and_never_typed():
    assert submit.parse_secrets(["A"], {"A": "1"}) == {"A": "1"}
    with pytest.raises(ValueError, match="--secret B: it is not set here"):
        submit.parse_secrets(["B"], {})
    with pytest.raises(ValueError, match="no place for a secret") as refused:
        submit.parse_secrets(["A=hush"], {})
    assert "hush" not in str(refused.value)
    command = submit.entrypoint("x.py", ["seed=1"], "_ray_pkg_1.zip")
    assert "python -m proxmo_rllib.jobs.secrets _ray_pkg_1.zip train x.py seed=1" in command
