"""`proxmo` names its subcommands, and every one it names is there."""

from __future__ import annotations

import importlib

import pytest

from proxmo_rllib.cli import COMMANDS, main, module_of


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_is_there(name):
    assert callable(importlib.import_module(module_of(name)).main)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"proxmo {name}" in capsys.readouterr().out


def test_an_unknown_command_lists_those_there_are(capsys):
    assert main(["trian"]) == 2
    printed = capsys.readouterr().err
    assert "'trian'" in printed
    assert all(name in printed for name in COMMANDS)


def test_without_a_command_it_fails_and_with_help_it_does_not(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "usage: proxmo" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    from proxmo_rllib import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"proxmo {__version__}\n"
