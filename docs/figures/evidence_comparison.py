"""Draws the trainings of docs/evidence.md: `python -m docs.figures.evidence_comparison`. Needs matplotlib.

A picture for each world that has trainings: the panel over the turns, and the differences from ProxMO with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.evidence.comparison.cells import RESULTS, file_of, read
from benchmarks.evidence.comparison.methods import PROXMO
from benchmarks.evidence.comparison.statistics import differences
from benchmarks.evidence.comparison.tables import by_method_and_seed
from benchmarks.evidence.comparison.worlds import WORLDS
from docs.figures.evidence_audit import STYLE

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
COLOURS = {"GRPO": "tab:blue", "GiGPO": "tab:red", PROXMO: "tab:green", "ProxMO, the examples' settings": "tab:olive"}

ByMethod = Mapping[str, Mapping[int, Mapping[str, Any]]]


def curves(axes: Axes, by_method: ByMethod) -> None:
    """The mean over seeds of the panel's success rate; the four that matter most in colour."""
    for method, records in by_method.items():
        points = np.array([record["curve"] for record in records.values()])  # [seeds, evaluations, 3]
        turns, rates = points[..., 0].mean(axis=0), 100 * points[..., 1].mean(axis=0)
        colour = COLOURS.get(method, "0.75")
        axes.plot(turns / 1000, rates, "-", color=colour, lw=1.5 if method in COLOURS else 0.8, marker=".", ms=3)
    for method, colour in COLOURS.items():
        if method in by_method:
            axes.plot([], [], "-", color=colour, label=method)
    axes.plot([], [], "-", color="0.75", label="the others")
    axes.set(xlabel="thousands of turns", ylabel="success on the panel, %")
    axes.legend(fontsize=6, loc="lower right")


def forest(axes: Axes, by_method: ByMethod) -> None:
    """Each method's difference from ProxMO in points, with Student's 95% interval over seeds."""
    found = differences(by_method, PROXMO)
    for place, difference in enumerate(reversed(found.values())):
        value, low, high = (100 * number for number in difference.mean)
        colour = "black" if difference.p_corrected < 0.05 else "0.5"
        axes.plot([low, high], [place, place], "-", color=colour, lw=1)
        axes.plot([value], [place], "o", color=colour, ms=3)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(yticks=range(len(found)), yticklabels=list(reversed(found)), xlabel="points more than ProxMO")


def draw(world: str, results: Path = RESULTS, into: Path = HERE) -> Path | None:
    """The picture of a world; None if it has no trainings that can be compared."""
    by_method = by_method_and_seed(read(file_of("main", world, results)).values())
    if len(by_method.get(PROXMO, {})) < 2:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.2))
    curves(left, by_method)
    forest(right, by_method)
    figure.suptitle(WORLDS[world].title, fontsize=8)
    figure.tight_layout()
    path = into / f"evidence_comparison_{world}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


if __name__ == "__main__":
    with plt.rc_context(STYLE):
        for name in WORLDS:
            draw(name)
