"""Finds the commands that the docs and docstrings tell a reader to type."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGES = ("README.md", "AGENTS.md", "CONTRIBUTING.md", "cluster/README.md", "docs/**/*.md")
MODULES = (
    "tuned_examples/*.py",
    "benchmarks/*.py",
    "benchmarks/*/*.py",
    "benchmarks/*/*/*.py",
    "proxmo_rllib/cli/*.py",
    "docs/*.py",
    "docs/figures/*.py",
)
#: First words of a command; an assignment such as NAME=value may stand before them.
PROGRAMS = "echo|proxmo|make|python|pip|ray|kubectl|sbatch|bash|alfworld-download"
_COMMAND = re.compile(rf"^(?:[A-Z_]+=\S+ )*(?:{PROGRAMS})(?= (?!=))")
# What a sentence calls a command by: its name, without what has to be typed after it.
_NAME = re.compile(r"^(?:proxmo (?!doctor)[\w-]+|proxmo doctor --env|proxmo train --dry-run|ray job submit)$")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n)\n((?: {4}\S.*(?:\n|$))+)")
_INLINE = re.compile(r"(?<!`)`([^`]+?)`(?!`)")


@dataclass(frozen=True, slots=True)
class Written:
    """A command, and the file that tells the reader to type it."""

    place: str
    command: str


def commands_of(repository: Path) -> list[Written]:
    """Every command, once a file, in the files' order."""
    found: dict[Written, None] = {}
    for pattern in PAGES:
        for path in sorted(repository.glob(pattern)):
            place = str(path.relative_to(repository))
            for command in in_text(path.read_text(encoding="utf-8"), markdown=True):
                found[Written(place, command)] = None
    for pattern in MODULES:
        for path in sorted(repository.glob(pattern)):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            for command in in_text(docstring, markdown=False):
                found[Written(str(path.relative_to(repository)), command)] = None
    return list(found)


def in_text(text: str, *, markdown: bool) -> Iterator[str]:
    """Commands of a text: the lines of its code blocks, and what stands between backticks and has arguments."""
    if markdown:
        for language, block in _FENCED.findall(text):
            if language in ("", "bash", "sh", "console"):
                yield from _lines(block)
        text = _FENCED.sub("", text)
    for block in _INDENTED.findall("\n" + text):
        yield from _lines(block)
    for span in _INLINE.findall(_INDENTED.sub("\n", "\n" + text)):
        words = re.sub(r"\s+", " ", span)
        if _COMMAND.match(words) and not _NAME.match(words):
            yield words


def _lines(block: str) -> Iterator[str]:
    for line in block.splitlines():
        command = re.sub(r"\s+#\s.*$", "", line).strip()
        if _COMMAND.match(command):
            yield command
