"""`proxmo doctor`: check the installation and the machine, and say what to do.

    proxmo doctor            # a table
    proxmo doctor --json     # {"ok": bool, "findings": [{"name", "status", "finding", "remedy"}]}
    proxmo doctor --env my_module:MyEnv    # an environment instead: does it keep the contract?

The exit status is 1 if something fails, 0 for warnings: with them the project runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxmo_rllib.cli.checks import Finding, Grade, examine

COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """One JSON object, for scripts."""
    rows = [
        {"name": row.name, "status": row.grade.value, "finding": row.finding, "remedy": row.remedy} for row in findings
    ]
    return json.dumps({"ok": not failed(findings), "findings": rows}, indent=2)


def as_table(findings: Sequence[Finding]) -> Table:
    """One row a finding; the remedy stands below what it remedies."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "finding"):
        table.add_column(heading, overflow="fold")
    for row in findings:
        text = row.finding if not row.remedy else f"{row.finding}\n-> {row.remedy}"
        # Escaped: rich would take the brackets of `pip install -e '.[cpu]'` for markup.
        table.add_row(f"[{COLOURS[row.grade]}]{row.grade.value}[/]", row.name, escape(text))
    return table


def failed(findings: Sequence[Finding]) -> int:
    """How many keep the project from running."""
    return sum(row.grade is Grade.FAIL for row in findings)


def examine_environment(name: str, settings: dict[str, Any]) -> list[Finding]:
    """What is wrong with an environment, one row each; one row that says so if nothing is.

    Args:
        name: the id of a registered environment, or "module:Name" of a class, a function or an id.
        settings: arguments of the environment.

    Raises:
        ValueError: there is no such environment.
    """
    import env_wrappers  # noqa: F401 (registers its environments)
    from env_wrappers.conformance import check_environment, resolve

    # As `python -m` does, so that a module in this folder is found.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = check_environment(resolve(name), arguments=settings)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not found:
        return [Finding(name, Grade.OK, "a few episodes found nothing wrong")]
    return [Finding(row.rule, Grade.FAIL, f"{row.where}: {row.what}", row.remedy) for row in found]


def main(argv: list[str]) -> int:
    """Report on this machine, or on an environment; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="proxmo doctor", description="Check the installation and the machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, default=Path(), help="where runs are written (default: here)")
    parser.add_argument("--env", help="check this environment instead: an id, or my_module:MyEnv")
    parser.add_argument("--env-config", type=json.loads, default={}, help="its arguments, as a JSON object")
    arguments = parser.parse_args(argv)
    if arguments.env is not None:
        if not isinstance(arguments.env_config, dict):
            parser.error(f"--env-config {arguments.env_config!r}: give a JSON object, such as '{{\"seed\": 1}}'")
        try:
            findings = examine_environment(arguments.env, arguments.env_config)
        except ValueError as error:
            parser.error(f"--env: {error}")
        return report(findings, arguments.json)
    if not arguments.folder.is_dir():
        parser.error(f"--folder {arguments.folder}: no such folder; make it, or name another")
    folder = arguments.folder.absolute()
    if arguments.json:
        return report(examine(folder), as_object=True)
    with Console().status("importing torch, Ray and vLLM"):
        findings = examine(folder)
    return report(findings, as_object=False)


def report(findings: Sequence[Finding], as_object: bool) -> int:
    """Print the findings, as a table or as one JSON object; the exit status."""
    if as_object:
        print(as_json(findings))
    else:
        console = Console()
        console.print(as_table(findings), highlight=False)
        warned = sum(row.grade is Grade.WARN for row in findings)
        console.print(f"\n{failed(findings)} failed, {warned} warnings, {len(findings)} checks", highlight=False)
    return 1 if failed(findings) else 0
