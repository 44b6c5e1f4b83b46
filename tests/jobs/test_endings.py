"""Why a job failed, in a line."""

from __future__ import annotations

import pytest

from proxmo_rllib.jobs.endings import why_failed

_RAYS = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\n..."


@pytest.mark.parametrize(
    ("message", "log", "why"),
    [
        (
            _RAYS.format(1),
            "on it\nproxmo train: lr=x is no number\nbye\n",
            "exit status 1: proxmo train: lr=x is no number",
        ),
        (_RAYS.format(1), "Traceback:\n  File x\nKeyError: 'a'\n", "exit status 1: KeyError: 'a'"),
        (_RAYS.format(2), "done what I can\n\n", "exit status 2: done what I can"),
        (_RAYS.format(-9), "iteration 3\n", "exit status -9: it was killed (SIGKILL), mostly by the kernel"),
        ("Runtime env setup failed: no space left", "", "Runtime env setup failed: no space left"),
        (None, "", "Ray does not say why"),
    ],
)
def test_the_reason_is_said_in_a_line(message, log, why):
    assert why_failed(message, log).startswith(why)


def test_a_package_that_the_cluster_lacks_is_said_with_the_remedy():
    log = (
        "/opt/python: Error while finding module specification (ModuleNotFoundError: No module named 'proxmo_rllib')\n"
    )
    said = why_failed(_RAYS.format(1), log)
    assert "has no proxmo_rllib: install it on every node" in said
