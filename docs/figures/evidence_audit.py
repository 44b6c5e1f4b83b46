"""Draws the pictures of docs/evidence.md: `python -m docs.figures.evidence_audit`. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from benchmarks.evidence.audit.cells import PAID, RATES, Cell, read
from benchmarks.evidence.audit.worlds import WORLDS

mpl.use("svg")

from matplotlib import pyplot as plt

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
SHOWN = {
    "RLOO": ("0.5", "-", "o"),
    "GRPO": ("tab:blue", "-", "s"),
    "GiGPO": ("tab:red", "-", "^"),
    "GiGPO, without std": ("tab:red", ":", "^"),
    "ProxMO": ("tab:green", "-", "D"),
    "ProxMO, without std": ("tab:green", ":", "D"),
    "ProxMO, official arithmetic": ("tab:purple", "--", "x"),
}


def draw(key: str, label: str, path: Path) -> None:
    """One small plot a world, a line a method, over the success rate."""
    found = read()
    worlds = [world for world in WORLDS if world != PAID]
    figure, every = plt.subplots(1, len(worlds), figsize=(9.0, 2.6), sharey=key == "angle")
    for world, axes in zip(worlds, every, strict=True):
        for method, (colour, line, mark) in SHOWN.items():
            some = [found[Cell(world, rate, 8)][method][key] for rate in RATES]
            values = [one.value for one in some]
            axes.plot(RATES, values, line, color=colour, marker=mark, markersize=3, label=method)
            if key == "angle":
                axes.fill_between(RATES, [o.low for o in some], [o.high for o in some], color=colour, alpha=0.1, lw=0)
        axes.set(title=world, xlabel="success rate", xticks=RATES, xticklabels=[f"{rate:g}" for rate in RATES])
    every[0].set_ylabel(label)
    every[0].legend(fontsize=5)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    with plt.rc_context(STYLE):
        draw("angle", "bias, degrees", HERE / "evidence_audit_bias.svg")
        draw("episodes", "episodes to 15°", HERE / "evidence_audit_episodes.svg")
