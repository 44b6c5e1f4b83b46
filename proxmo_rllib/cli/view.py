"""`proxmo view`: see what a run's episodes did, and why each turn got its advantage.

    proxmo view runs/quickstart-20260102-030405
    proxmo view runs/quickstart-20260102-030405 --html run.html
    proxmo view runs/quickstart-20260102-030405 --terminal --status failure --iteration 12
    proxmo view runs/quickstart-20260102-030405 | less

On a terminal the first serves a page to this machine alone, until Ctrl-C; docs/viewer.md says what is on it. `--html`
writes the page as one file to share. `--terminal` shows one episode after the other in the terminal. Where the output
is no terminal, as in the last, it prints all of them, unless `--port` asks for the page.

`--status failure` finds every episode that did not solve its task, whether the environment ended it or its turns or
tokens ran out; `--status truncated` only the latter. Episodes that broke are none of them: `--status error`. The page
opens with what is asked for; `--html` holds whole groups, those with such an episode.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import Progress
from rich.text import Text

from proxmo_rllib.cli.stored import here
from proxmo_rllib.json_lines import read_episode
from proxmo_rllib.machine.disk import in_mib
from proxmo_rllib.record_file import record_lines, record_of
from proxmo_rllib.storage.place import StorageError, path_or_uri

_COLOURS = {"success": "green", "failure": "red", "truncated": "yellow", "error": "bold red"}
# What `--status` asks for, and how an episode's record says it.
_STATUSES = {
    "success": ("success",),
    "failure": ("failure", "truncated"),
    "truncated": ("truncated",),
    "error": ("error",),
}
_HELP = "Enter: next   p: previous   a number: that episode   q: quit"


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo view", description="See the recorded episodes of a run, and why.")
    parser.add_argument(
        "run", type=path_or_uri, metavar="RUN_DIR", help="a run's folder or URI, or its episodes.jsonl.gz"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--port", type=_port, help="serve the page there; a free port by default")
    how.add_argument("--html", type=Path, metavar="FILE", help="write the page as one file, which needs no network")
    how.add_argument("--terminal", action="store_true", help="show the episodes in the terminal")
    parser.add_argument("--iteration", type=int, help="only this iteration")
    parser.add_argument("--status", choices=tuple(_STATUSES), help="only episodes that ended so; failure: unsolved")
    parser.add_argument("--task-type", help="only tasks of this type")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0, for a free one, to 65535")
    return int(text)


def read_episodes(path: Path) -> Iterator[dict[str, Any]]:
    """The episodes of a run, in the order in which they were written.

    Raises:
        ValueError: there are none, or a line is damaged.
    """
    file = record_of(path)
    for number, line in enumerate(record_lines(file), start=1):
        yield read_episode(line, f"{file}, line {number}")


def wanted(episode: Mapping[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether an episode fits what the command line asks for."""
    return (
        (arguments.iteration is None or episode["iteration"] == arguments.iteration)
        and (arguments.status is None or episode["status"] in _STATUSES[arguments.status])
        and (arguments.task_type is None or episode["task_type"] == arguments.task_type)
    )


def as_panel(episode: Mapping[str, Any], place: str) -> Panel:
    """One episode, turn by turn."""
    parts: list[RenderableType] = []
    for number, turn in enumerate(episode["turns"], start=1):
        parts.append(Text(turn["observation"]))
        if turn["response"].strip() != turn["action"]:
            parts.append(Text(turn["response"], style="dim"))
        note = "" if turn["valid"] else "   (invalid)"
        line = Text(f"{number:>2} > {turn['action']}", style="bold cyan" if turn["valid"] else "bold red")
        parts.append(line + Text(f"{note}   reward {turn['reward']:g}   logprob {turn['logprob']:.2f}\n", style="dim"))
    if episode["error"]:
        parts.append(Text(episode["error"], style="bold red"))
    colour = _COLOURS.get(episode["status"], "white")
    title = f"{place}  iteration {episode['iteration']}  {episode['task']}  {episode['task_type']}"
    verdict = f"{episode['status']}, {len(episode['turns'])} turns, return {episode['return']:g}"
    return Panel(Group(*parts), title=Text(title), subtitle=Text(verdict), border_style=colour, title_align="left")


def browse(console: Console, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Shows one episode after the other, as the person asks."""
    index = 0
    while True:
        console.print(as_panel(episodes[index], f"{index + 1}/{len(episodes)}"))
        try:
            answer = console.input(f"[dim]{_HELP}[/] ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            return
        if answer == "q":
            return
        if answer.isdigit():
            index = int(answer) - 1
        elif answer in ("", "n", "p"):
            index += -1 if answer == "p" else 1
        if index >= len(episodes):
            return
        index = max(0, index)


def main(argv: list[str]) -> int:
    """Show a run; see the module's docstring."""
    arguments = parse(argv)
    try:
        arguments.run = here(arguments.run)
        if arguments.html is not None:
            return _write(arguments)
        if arguments.port is not None or (sys.stdout.isatty() and not arguments.terminal):
            return _serve(arguments)
        return _print(arguments)
    except (ValueError, StorageError) as error:
        print(f"proxmo view: {error}", file=sys.stderr)
        return 1


def _print(arguments: argparse.Namespace) -> int:
    episodes = [episode for episode in read_episodes(arguments.run) if wanted(episode, arguments)]
    if not episodes:
        print("proxmo view: no episode of the record is like that", file=sys.stderr)
        return 1
    console = Console(highlight=False)
    if console.is_terminal and sys.stdin.isatty():
        browse(console, episodes)
    else:
        for index, episode in enumerate(episodes, start=1):
            console.print(as_panel(episode, f"{index}/{len(episodes)}"))
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from proxmo_rllib.viewer.run import ViewedRun
    from proxmo_rllib.viewer.server import PageServer

    with PageServer(ViewedRun(arguments.run), arguments.port or 0) as server:
        _warn(server.run.index()["damage"])
        filters = {"iteration": arguments.iteration, "outcome": arguments.status, "type": arguments.task_type}
        chosen = urlencode({key: value for key, value in filters.items() if value is not None})
        url = f"{server.url}#{chosen}" if chosen else server.url
        print(f"{server.run.name}: {url}   (Ctrl-C ends)", flush=True)
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _write(arguments: argparse.Namespace) -> int:
    from proxmo_rllib.viewer.run import RecordedGroup, ViewedRun
    from proxmo_rllib.viewer.single_file import write_page

    def fits(group: RecordedGroup) -> bool:
        return (
            (arguments.iteration is None or group.iteration == arguments.iteration)
            and (arguments.status is None or bool(set(group.statuses) & set(_STATUSES[arguments.status])))
            and (arguments.task_type is None or group.task_type == arguments.task_type)
        )

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("groups", total=None)
        run = ViewedRun(arguments.run)
        count = write_page(run, arguments.html, fits, lambda n, total: bar.update(task, completed=n, total=total))
    _warn(run.index()["damage"])
    print(f"written: {arguments.html}, {count} groups, {in_mib(arguments.html.stat().st_size)}")
    return 0


def _warn(damage: Sequence[str]) -> None:
    for words in damage:
        print(f"proxmo view: {words}", file=sys.stderr)
