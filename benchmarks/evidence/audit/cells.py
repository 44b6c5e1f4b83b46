"""The cells of the audit's tables: which world, at what success rate, with how many episodes a group."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.audit.estimate import audit_of, draw, gradients, redrawn
from benchmarks.evidence.audit.exact import episodes_of, with_success_rate
from benchmarks.evidence.audit.methods import BY_TURN, METHODS, Method
from benchmarks.evidence.audit.worlds import WORLDS
from proxmo_rllib.machine.disk import write_whole

#: What was found, committed, so that the tables are drawn again from it.
RESULTS = Path(__file__).parent.parent / "results" / "audit.json"

RATES = (0.05, 0.2, 0.5, 0.8)
SIZES = (4, 8, 16)
DEGREES = 15.0
PAID = "paid loop"


@dataclass(frozen=True, slots=True)
class Cell:
    """A world, the success rate of the policy in it, and the episodes of a group."""

    world: str
    rate: float
    size: int

    def __str__(self) -> str:
        return f"{self.world}, {self.rate:.0%}, {self.size} a group"

    @property
    def methods(self) -> Mapping[str, Method]:
        return BY_TURN if self.world == PAID else METHODS


@dataclass(frozen=True, slots=True)
class Found:
    """A number with its 95% interval, by bootstrap over the groups; infinite where it is never reached."""

    value: float
    low: float
    high: float


def cells() -> Iterator[Cell]:
    """All that is asked: every rate at eight a group, every size at a fifth of successes."""
    for world in WORLDS:
        yield from (Cell(world, rate, 8) for rate in RATES)
        yield from (Cell(world, 0.2, size) for size in SIZES if size != 8)


def audit(cell: Cell, methods: Sequence[str], groups: int, seed: int) -> dict[str, dict[str, Found]]:
    """What methods make of the same groups: "angle", "length", "noise" and "episodes", by method.

    Args:
        cell: which.
        methods: of the cell, by name.
        groups: how many are drawn.
        seed: of the drawing.
    """
    world = WORLDS[cell.world]
    episodes = episodes_of(world, with_success_rate(world, cell.rate))
    drawn = draw(episodes, groups, cell.size, np.random.default_rng([seed, zlib.crc32(str(cell).encode())]))
    found = {}
    for name in methods:
        rows = gradients(episodes, drawn, cell.methods[name])
        audits = [audit_of(rows, episodes.gradient), *redrawn(rows, episodes.gradient, np.random.default_rng(seed))]
        numbers = [asdict(one) | {"episodes": one.episodes_to(DEGREES, cell.size)} for one in audits]
        found[name] = {key: _with_interval([each[key] for each in numbers]) for key in numbers[0]}
    return found


def _with_interval(values: list[float]) -> Found:
    """The first value, and between which the middle 95% of the others lie."""
    low, high = np.quantile(values[1:], (0.025, 0.975), method="nearest")
    return Found(values[0], float(low), float(high))


def read(path: Path = RESULTS) -> dict[Cell, dict[str, dict[str, Found]]]:
    """What was found so far."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        Cell(one["world"], one["rate"], one["size"]): {
            method: {key: _found(numbers) for key, numbers in row.items()} for method, row in one["methods"].items()
        }
        for one in content["cells"]
    }


def _found(numbers: list[float | None]) -> Found:
    return Found(*(np.inf if number is None else number for number in numbers))


def write(
    found: Mapping[Cell, Mapping[str, Mapping[str, Found]]], groups: int, seed: int, path: Path = RESULTS
) -> None:
    """Keeps what was found, whole or not at all; four digits, None for infinity."""
    content: dict[str, Any] = {"groups": groups, "seed": seed, "cells": []}
    for cell, methods in found.items():
        rows = {
            method: {key: [_short(n) for n in (one.value, one.low, one.high)] for key, one in row.items()}
            for method, row in methods.items()
        }
        content["cells"].append(asdict(cell) | {"methods": rows})
    path.parent.mkdir(exist_ok=True)
    write_whole(path, [json.dumps(content, separators=(",", ":")).replace('{"world"', '\n{"world"') + "\n"])


def _short(number: float) -> float | None:
    return float(f"{number:.4g}") if np.isfinite(number) else None


def settings_of(path: Path = RESULTS) -> tuple[int, int] | None:
    """Groups and seed of what was found so far; None if nothing was."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["groups"], content["seed"]
