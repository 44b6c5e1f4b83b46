"""`proxmo doctor`: check the installation and the machine, and say what to do.

    proxmo doctor            # a table
    proxmo doctor --json     # {"ok": bool, "findings": [{"name", "status", "finding", "remedy"}]}

The exit status is 1 if something fails, 0 for warnings: with them the project runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

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


def main(argv: list[str]) -> int:
    """Report on this machine; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="proxmo doctor", description="Check the installation and the machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, default=Path(), help="where runs are written (default: here)")
    arguments = parser.parse_args(argv)
    if not arguments.folder.is_dir():
        parser.error(f"--folder {arguments.folder}: no such folder; make it, or name another")
    folder = arguments.folder.absolute()
    if arguments.json:
        findings = examine(folder)
        print(as_json(findings))
    else:
        console = Console()
        with console.status("importing torch, Ray and vLLM"):
            findings = examine(folder)
        console.print(as_table(findings), highlight=False)
        warned = sum(row.grade is Grade.WARN for row in findings)
        console.print(f"\n{failed(findings)} failed, {warned} warnings, {len(findings)} checks", highlight=False)
    return 1 if failed(findings) else 0
