"""Draws the quickstart's learning curves: `python docs/figures/quickstart.py RUN [RUN ...]`. Needs matplotlib.

A RUN is a folder that `proxmo train` made. The points are the panel's success rates with their 95% intervals, the faint
lines those of the training episodes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent
# Text stays text, and the same input gives the same file.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "proxmo",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def learning_curves(runs: Sequence[Path]) -> Figure:
    """Success over minutes of wall time, a colour a run."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    for number, run in enumerate(runs):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        seed = json.loads((run / "summary.json").read_text(encoding="utf-8"))["seed"]
        colour = f"C{number}"
        trained = [row for row in rows if row.get("env_runners/success_rate") is not None]
        axes.plot(
            [row["minutes"] for row in trained],
            [100 * row["env_runners/success_rate"] for row in trained],
            color=colour,
            alpha=0.25,
            linewidth=0.8,
        )
        panel = [row for row in rows if row.get("evaluation/success_rate") is not None]
        rates = [100 * row["evaluation/success_rate"] for row in panel]
        low = [rate - 100 * row["evaluation/success_low"] for rate, row in zip(rates, panel, strict=True)]
        high = [100 * row["evaluation/success_high"] - rate for rate, row in zip(rates, panel, strict=True)]
        axes.errorbar(
            [row["minutes"] for row in panel],
            rates,
            yerr=[low, high],
            fmt="o-",
            markersize=3,
            linewidth=1.4,
            elinewidth=0.7,
            color=colour,
            label=f"seed {seed}",
        )
    axes.axhline(85, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="minutes, start-up included", ylabel="success, %", ylim=(0, 100))
    axes.legend(loc="lower right", title="held-out panel, 95% interval")
    return figure


def main(runs: Sequence[Path], folder: Path = HERE) -> None:
    """Draws the picture of these runs into a folder."""
    with plt.rc_context(STYLE):
        figure = learning_curves(runs)
        figure.tight_layout()
        figure.savefig(folder / "quickstart.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(word) for word in sys.argv[1:]])
