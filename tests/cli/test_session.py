"""Ray for a command: addresses that do not answer, and a terminal that libraries do not fill."""

from __future__ import annotations

import logging
import os
import socket
import time

import pytest

from proxmo_rllib.cli.session import check_address, prepare_environment, quiet_terminal


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_cluster_that_is_not_there_is_named_within_seconds():
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=address) as refused:
        check_address(address)
    assert "ray start --head" in str(refused.value)
    assert time.monotonic() - started < 10


def test_the_address_of_the_environment_counts_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match="unset RAY_ADDRESS"):
        check_address(None)


@pytest.mark.parametrize(("address", "says"), [("http://head:8265", "proxmo submit"), ("head", "HOST:PORT")])
def test_what_is_no_address_of_a_cluster_is_refused(address, says):
    with pytest.raises(ConnectionError, match=says):
        check_address(address)


def test_something_that_listens_passes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_users_choice_stays(tmp_path):
    environment = {"RAY_AUTH_MODE": "disabled", "TOKENIZERS_PARALLELISM": "true"}
    prepare_environment(environment, tmp_path, None)
    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert environment["TOKENIZERS_PARALLELISM"] == "true"


def test_a_cluster_gets_the_token_that_is_there(tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    environment: dict[str, str] = {}
    prepare_environment(environment, tmp_path, "10.0.0.1:6379")
    assert environment["RAY_AUTH_MODE"] == "token"


def test_libraries_write_to_the_log_and_the_command_and_its_warnings_to_the_terminal(tmp_path, capfd):
    log = tmp_path / "log.txt"
    with quiet_terminal(log) as console:
        print("python chatter")
        os.write(2, b"native chatter\n")
        logging.getLogger("ray").info("ray chatter")
        logging.getLogger("proxmo_rllib.rollouts").info("detail")
        logging.getLogger("proxmo_rllib.rollouts").warning("a real warning")
        logging.getLogger("proxmo_rllib.rollouts").warning("a real warning")
        console.print("iteration 1")
    print("after")
    seen = capfd.readouterr()
    assert "iteration 1" in seen.out
    assert "after" in seen.out
    assert seen.out.count("a real warning") == 1
    assert "chatter" not in seen.out + seen.err
    written = log.read_text()
    for text in ("python chatter", "native chatter", "detail", "a real warning"):
        assert text in written


def test_the_terminal_is_given_back_after_an_error(tmp_path, capfd):
    with pytest.raises(RuntimeError), quiet_terminal(tmp_path / "log.txt"):
        raise RuntimeError
    print("visible")
    assert "visible" in capfd.readouterr().out


def test_a_package_of_our_name_in_the_present_folder_is_refused_before_ray_would_take_it(tmp_path, monkeypatch):
    from proxmo_rllib.cli.examples import installed_examples, refuse_other_packages_here

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuned_examples").mkdir()
    (tmp_path / "tuned_examples" / "mine.py").write_text("config = None\n")
    refuse_other_packages_here()  # without an __init__.py the installed one comes first
    (tmp_path / "tuned_examples" / "__init__.py").touch()
    with pytest.raises(ValueError, match=r"__init__\.py: Ray's processes would import it in the place of"):
        refuse_other_packages_here()
    assert "quickstart" in installed_examples()
    assert "mine" not in installed_examples()


def test_a_checkout_is_no_other_package(repository, monkeypatch):
    from proxmo_rllib.cli.examples import refuse_other_packages_here

    monkeypatch.chdir(repository)
    refuse_other_packages_here()
