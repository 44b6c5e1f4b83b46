"""`proxmo data`: get the data of an environment, check it, and say where it goes.

    proxmo data alfworld                   # into $ALFWORLD_DATA, or ~/.cache/alfworld
    proxmo data alfworld ~/games           # a folder of alfworld-download, or a games.jsonl.xz
    proxmo data webshop [PATH]             # where to get its files; whether those in PATH are right

ALFWorld's games are downloaded with `alfworld-download` where none are, compared with the official ones, won once each,
and packed into one `games.jsonl.xz`. The exit status is 1 if they are not all there and in order.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from env_wrappers.alfworld.data import SplitReport

DATASETS = ("alfworld", "webshop")
DOWNLOADER = "alfworld-download"
PACKED = "games.jsonl.xz"
_ARCHIVE = re.compile(r'TW_PDDL_FILES_URL = "(\S+)"')
_RELEASES = "https://github.com/alfworld/alfworld/releases"
_ANSWER_S = 10.0
_SHOWN = 10  # damaged games that are named

T = TypeVar("T")


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo data", description="Get, check and pack the data of an environment.")
    parser.add_argument("dataset", choices=DATASETS, help="whose data")
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        help="where it is or shall be (alfworld: default $ALFWORLD_DATA, or ~/.cache/alfworld)",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Get, check and pack; see the module's docstring."""
    arguments = parse(argv)
    path = arguments.path.expanduser() if arguments.path else None
    try:
        return _webshop(path) if arguments.dataset == "webshop" else _alfworld(path, Console(highlight=False))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"proxmo data: {error}", file=sys.stderr)
        return 1


def _webshop(folder: Path | None) -> int:
    from env_wrappers.webshop.data import check_folder, describe

    print(check_folder(folder) if folder else describe())
    return 0


def _alfworld(given: Path | None, console: Console) -> int:
    from env_wrappers.alfworld.data import convert, verify
    from env_wrappers.alfworld.games import find_games

    path = given or Path(os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser()
    try:
        games = find_games(path)
    except FileNotFoundError:
        if path.suffix in {".xz", ".jsonl"}:
            raise FileNotFoundError(f"{path}: no such file; give another path, or a folder to download into.") from None
        print(f"{path} holds no games; downloading there with {DOWNLOADER}", flush=True)
        download(path)
        games = find_games(path)
    reports = _watched(console, "checking", lambda progress: verify(games, progress))
    console.print(games, soft_wrap=True)
    console.print(as_table(reports))
    for damage in [damage for report in reports for damage in report.damaged][:_SHOWN]:
        print(damage)
    complete = all(report.complete for report in reports)
    if not complete:
        missing = ", ".join(report.split for report in reports if not report.complete)
        print(f"Not all of it: {missing}. What is there can be played. To get all:\n{by_hand(path)}")
    if games.is_dir() and not any(report.damaged for report in reports):
        target = (path if path.is_dir() else games) / PACKED
        number = _watched(console, "packing", lambda progress: convert(games, target, progress))
        print(f"packed {number} games into {target}, which is read from now on")
    print(f"Use it with: export ALFWORLD_DATA={path.absolute()}")
    return 0 if complete else 1


def download(folder: Path) -> None:
    """Run alfworld-download, which shows its progress itself.

    Raises:
        ConnectionError: it could not; says what to do instead.
    """
    script = downloader()
    if script is None:
        raise ConnectionError(f"{DOWNLOADER} is not installed; it comes with alfworld>=0.4.2.\n{by_hand(folder)}")
    url = archive_url(script)
    # Asked first: alfworld-download waits for an answer without end.
    if (why := unreachable(url)) is not None:
        raise ConnectionError(f"{url} cannot be reached from here ({why}).\n{by_hand(folder)}")
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"ALFWORLD_DATA": str(folder)}  # else it makes a folder elsewhere
    status = subprocess.run([sys.executable, script, "--data-dir", folder], env=environment, check=False).returncode
    if status:
        raise ConnectionError(f"{DOWNLOADER} failed with status {status}; it goes on where it was.\n{by_hand(folder)}")


def downloader() -> Path | None:
    """The script that the alfworld package installs, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(DOWNLOADER)
    found = str(beside) if beside.is_file() else shutil.which(DOWNLOADER)
    return Path(found) if found else None


def archive_url(script: Path | None) -> str:
    """Where the script gets the games from; the page of releases if it does not say."""
    match = _ARCHIVE.search(script.read_text(encoding="utf-8")) if script else None
    return match[1] if match else _RELEASES


def unreachable(url: str) -> str | None:
    """Why an address cannot be reached, or None where it can. Heeds the proxies of the environment."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_S):
            return None
    except OSError as error:  # urllib's errors and timeouts are of this kind
        return str(error)


def by_hand(path: Path) -> str:
    """What to do where there is no network, in commands."""
    folder = path if not path.suffix else path.parent
    return (
        "On a machine with a network say\n"
        f"    {DOWNLOADER} --data-dir alfworld      # or unpack {archive_url(downloader())} there\n"
        "    proxmo data alfworld alfworld\n"
        f"and copy alfworld/{PACKED} into {folder} on this one. Then say\n"
        f"    proxmo data alfworld {folder}\n"
        "Without the official games everything runs on generated ones."
    )


def as_table(reports: Sequence[SplitReport]) -> Table:
    """One row a split."""
    table = Table(box=None, pad_edge=False)
    table.add_column("split")
    table.add_column("games", justify="right")
    table.add_column("official", justify="right")
    table.add_column("finding")
    table.add_column("SHA-256 of the ids")
    for report in reports:
        colour = "green" if report.complete else "yellow"
        digest = report.ids[:16] if report.games else "-"
        table.add_row(report.split, str(report.games), str(report.official), f"[{colour}]{report.finding}[/]", digest)
    return table


def _watched(console: Console, what: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
    """Does the work and shows how far it is."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        return work(lambda done, total: progress.update(task, completed=done, total=total))
