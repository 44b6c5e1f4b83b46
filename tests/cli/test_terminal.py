"""What a person sees on a terminal of a given width, whatever standard input is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

SCRIPT = """
import sys
from pathlib import Path
from proxmo_rllib import StopCriteria
from proxmo_rllib.cli.live import make_view
from proxmo_rllib.cli.session import quiet_terminal
from proxmo_rllib.training_run import PanelScore, Progress

with quiet_terminal(Path(sys.argv[1])) as console, make_view(console, StopCriteria(iterations=120), "run") as view:
    for iteration in range(98, 102):
        seconds, panel = (60.5, 3.0, 0.2), PanelScore(128, 128, 2.0)
        counts = (iteration, iteration / 20, 128, 128, -10.75, 15.5, 1.0, 0)
        view.on_iteration(Progress(*counts, *seconds, 512.0, 4096.0, 1000, 1e-6, panel), {}, [])
        view._live.refresh()
"""
# What moves the cursor or clears, and what colours.
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(columns: int, arguments: list[str], stdin_is_it: bool) -> list[str]:
    """What a process wrote to a terminal of that width, line by line as it was sent."""
    child, terminal = pty.fork()
    if child == 0:
        if not stdin_is_it:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        os.execve(sys.executable, [sys.executable, *arguments], environment | {"TERM": "xterm"})
    written = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the process has ended
            break
        if not chunk:
            break
        written += chunk
    assert os.waitpid(child, 0)[1] == 0, written.decode()
    return _CONTROL.sub(b"", written).decode().replace("\r", "\n").splitlines()


@pytest.mark.parametrize(("columns", "stdin_is_it"), [(60, False), (80, True), (140, True)])
def test_the_live_view_fits_the_terminal_and_says_whole_words(tmp_path, columns, stdin_is_it):
    """A line that the terminal has to wrap makes the next table stand below this one, instead of in its place."""
    lines = on_a_terminal(columns, ["-c", SCRIPT, str(tmp_path / "log.txt")], stdin_is_it)
    assert max(map(len, lines)) <= columns
    headings = next(line for line in lines if "success" in line and "iter" in line)
    assert "…" not in "".join(lines), lines
    assert {"iter", "success", "turns", "seconds"} <= set(headings.split())
    assert ("panel" in headings) == (columns >= 66)
    assert ("version" in headings) == (columns >= 102)
    assert any("101/120" in line and "100.0%" in line for line in lines)
