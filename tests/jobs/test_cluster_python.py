"""What the cluster's Python has is asked before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from proxmo_rllib.jobs.cluster_python import ClusterPython, check_python, question, read_answer, requirements


def test_a_real_python_answers(tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    done = subprocess.run(
        ["/bin/sh", "-c", question(["numpy", "no-such-package"])],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = read_answer(f"noise\n{done.stdout}")
    assert answer.version == sys.version.split()[0]
    assert Path(answer.path).resolve() == Path(sys.executable).resolve()
    assert set(answer.packages) == {"numpy", "no-such-package"}
    assert answer.packages["no-such-package"] is None


def test_a_cluster_without_python_says_so():
    with pytest.raises(RuntimeError, match=r"python: not found.*Dockerfile"):
        read_answer("sh: 1: python: not found\n")


@pytest.mark.parametrize("version", ["3.10.4", "3.13.0"])
def test_another_python_is_refused(version):
    with pytest.raises(RuntimeError, match=rf"Python is {version}.*needs 3.11 or 3.12"):
        check_python(ClusterPython(version, "/usr/bin/python", {}), [])


def test_what_is_missing_or_too_old_is_named():
    there = ClusterPython("3.11.7", "/usr/bin/python", {"torch": "2.1.0", "rich": "13.0", "ray": None})
    needed = [Requirement("torch>=2.13,<2.15"), Requirement("rich>=13"), Requirement("ray[default]==2.60.*")]
    with pytest.raises(RuntimeError, match=r"lacks torch 2\.1\.0 \(needs .*\), ray: install the project on every node"):
        check_python(there, needed)
    check_python(there, [Requirement("rich>=13")])


def test_the_package_itself_is_asked_for_where_it_does_not_travel():
    assert "proxmo_rllib" in [each.name for each in requirements(sent=False)]
    assert "proxmo_rllib" not in [each.name for each in requirements(sent=True)]
