"""The wheel and the source archive hold what they should, and the wheel works where there is no checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = ("env_wrappers", "proxmo_rllib", "tuned_examples")
#: Of a checkout, what must stay outside of the archives.
_OUTSIDE = ("benchmarks", "cluster", "docs", "tests")
_BUILD = "import sys, setuptools.build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
# Several commands in one process, since each imports torch and Ray; what they say comes back one by one.
_TYPE = """
import contextlib, io, json, sys

sys.path.remove("")  # as where `proxmo` is started, the present folder is not on the path
from proxmo_rllib.cli import main

done = []
for words, answers in json.load(sys.stdin):
    out, sys.stdin = io.StringIO(), io.StringIO(answers)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(words)
        except SystemExit as stopped:
            status = stopped.code
    done.append([status, out.getvalue()])
import env_wrappers, proxmo_rllib, tuned_examples

print(json.dumps([done, [env_wrappers.__file__, proxmo_rllib.__file__, tuned_examples.__file__]]))
"""


@dataclass(frozen=True)
class Built:
    """Where the archives are, and the folder into which the wheel was unpacked."""

    wheel: Path
    sdist: Path
    site: Path


def files_in(root: Path, folders: tuple[str, ...]) -> set[str]:
    """Paths of the files in some folders, without what Python or an editor leaves there."""
    found = (path.relative_to(root) for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {
        str(path)
        for path in found
        if "__pycache__" not in path.parts and not path.name.startswith(".") and path.suffix != ".pyc"
    }


def build(source: Path, target: Path) -> tuple[Path, Path]:
    """Wheel and source archive of a folder, without a network: by the setuptools that is installed."""
    target.mkdir()
    command = [sys.executable, "-c", _BUILD, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(target.glob("*.whl")), next(target.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(repository / name, source)
    for name in _OUTSIDE:
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    wheel, sdist = build(source, root / "dist")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    return Built(wheel, sdist, root / "site")


def test_the_wheel_has_every_file_of_the_packages_and_no_other(repository, built):
    with zipfile.ZipFile(built.wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == files_in(repository, PACKAGES)
    # Of each kind of file that is opened by its place in the package.
    assert {Path(name).suffix for name in inside} >= {".py", ".typed", ".safetensors", ".jinja", ".js", ".css", ".html"}


def test_the_source_archive_has_all_that_the_wheel_is_made_from(repository, built):
    with tarfile.open(built.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= files_in(repository, PACKAGES) | {"pyproject.toml", "README.md", "LICENSE"}
    assert not {name.partition("/")[0] for name in inside} & set(_OUTSIDE)


def type_in(built: Built, folder: Path, *commands: tuple[list[str], str]) -> list[tuple[int, str]]:
    """Status and output of commands, of the unpacked wheel, in a folder and a home of their own."""
    kept = {key: value for key, value in os.environ.items() if key not in ("ALFWORLD_DATA", "RAY_ADDRESS")}
    environment = {"PYTHONPATH": str(built.site), "HOME": str(folder.parent), "TERM": "dumb", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", _TYPE],
        input=json.dumps(commands),
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said, places = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(place).is_relative_to(built.site) for place in places), places
    return [(status, output) for status, output in said]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    folder = tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_every_command_explains_itself_without_a_checkout(built, empty):
    from proxmo_rllib.cli import COMMANDS

    done = type_in(built, empty, *(([name, "--help"], "") for name in COMMANDS))
    for name, (status, output) in zip(COMMANDS, done, strict=True):
        assert status == 0, f"{name}: {output[-2000:]}"
        assert f"usage: proxmo {name}" in output


def write_record(run: Path) -> None:
    turn = {"observation": "A room.", "response": "look", "action": "look", "valid": True, "reward": 0.0}
    episode = {"iteration": 1, "task": "task-1", "task_type": "look", "status": "success", "return": 1.0, "error": None}
    places = {"group": "0-1", "episode": "0-1-0", "turns": [turn | {"logprob": -0.5, "version": 0}]}
    run.mkdir()
    (run / "episodes.jsonl").write_text(json.dumps(episode | places) + "\n")
    (run / "metrics.jsonl").write_text('{"iteration": 1, "env_runners/success_rate": 1.0}\n')


@pytest.mark.slow
@pytest.mark.smoke
def test_a_user_of_the_wheel_gets_to_a_dry_run_a_page_and_a_report(built, empty):
    """What is opened here by its place in the package: examples, a policy with its template, the viewer's page."""
    write_record(empty / "a_run")
    typed = {
        "init my_agent.py": ("", "proxmo train my_agent.py --dry-run"),
        "train my_agent.py --dry-run": ("", r"environment +ok +my_agent:GuessEnv"),
        "train quickstart --dry-run": ("", r"an iteration takes about [\d.]+ s"),
        "plan alfworld_qwen2_5_1_5b": ("", r"micro-batches of 16,384 tokens"),
        "play quickstart": ("look\nquit\n", "left the task unfinished"),
        "play quickstart --agent asset:alfworld-tiny --max-turns 1": ("", "truncated after 1 turns"),
        "view a_run --html page.html": ("", "written: page.html, 1 groups"),
        "eval random env=env_wrappers/TextCraft-v0 --panel textcraft-test-200 --output results": ("", "report.html"),
        "data webshop": ("", "items_shuffle_1000.json"),
    }
    done = type_in(built, empty, *((words.split(), answers) for words, (answers, _) in typed.items()))
    for (words, (_, says)), (status, output) in zip(typed.items(), done, strict=True):
        assert status == 0, f"{words}: {output[-2000:]}"
        assert re.search(says, output), f"{words}: {output[-2000:]}"
    for page in (empty / "page.html", empty / "results" / "report.html"):
        assert "<script" in page.read_text()
        assert "<style" in page.read_text()
