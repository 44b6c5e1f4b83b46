"""Draws what was simulated for docs/scaling.md: `python docs/figures/scaling.py`. Needs matplotlib.

It reads scaling.json, which benchmarks.scaling writes with --into, and simulates nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
# Text stays text, and the same input gives the same file.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "proxmo",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
PARTS = {"engines": "C0", "runners": "C1", "learners": "C2", "transfer": "C3", "driver": "C4", "store": "C5"}
BUSY_AT = 1  # the staleness of the lower row

Row = Mapping[str, Any]


def scaling(rows: Sequence[Row]) -> Figure:
    """A column a scenario: the time of an iteration, and what is busy, over the number of engines."""
    plain = [row for row in rows if row["remedy"] == "as it is"]
    names = list(dict.fromkeys(row["scenario"] for row in plain))
    figure, axes = plt.subplots(
        2, len(names), figsize=(3.8 * len(names), 5.4), layout="constrained", sharex=True, squeeze=False
    )
    for column, name in enumerate(names):
        mine = [row for row in plain if row["scenario"] == name]
        _times(axes[0, column], mine)
        axes[0, column].set_title(name)
        _busy(axes[1, column], [row for row in mine if row["max_staleness"] == BUSY_AT])
        axes[1, column].set_xlabel("engines, runners, learners each")
        numbers = sorted({row["number"] for row in mine})
        axes[1, column].set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes[0, 0].set_ylabel("an iteration, s")
    axes[1, 0].set_ylabel(f"busy, % (staleness {BUSY_AT})")
    axes[0, 0].legend(title="max_staleness", title_fontsize=7, fontsize=7)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(PARTS), fontsize=7)
    return figure


def _times(axes: Axes, rows: Sequence[Row]) -> None:
    for number, staleness in enumerate(sorted({row["max_staleness"] for row in rows})):
        mine = [row for row in rows if row["max_staleness"] == staleness]
        line = "-" if staleness == 0 else "--"
        axes.plot(
            [r["number"] for r in mine],
            [r["seconds"] for r in mine],
            f"o{line}",
            markersize=3,
            color=f"C{number}",
            label=str(staleness),
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")


def _busy(axes: Axes, rows: Sequence[Row]) -> None:
    for part, colour in PARTS.items():
        share = [100 * row["busy"][part] for row in rows]
        axes.plot([row["number"] for row in rows], share, "o-", markersize=3, color=colour, label=part)
    axes.set_ylim(0, 100)


def main(folder: Path = HERE) -> None:
    """Draws the picture into a folder."""
    rows = json.loads((HERE / "scaling.json").read_text(encoding="utf-8"))
    with plt.rc_context(STYLE):
        figure = scaling(rows)
        figure.savefig(folder / "scaling.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
