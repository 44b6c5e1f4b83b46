"""Draws what is packed: episodes of the quickstart's world, padded and packed.

python -m benchmarks.learner.picture
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.learner.workload import base_config, play, rows_of
from proxmo_rllib.learner.packing import pack, sort_rows

mpl.use("svg")

from matplotlib import pyplot as plt

PICTURE = Path(__file__).parents[2] / "docs" / "figures" / "packing.svg"
PADDING, SHARED, CONTEXT, SAMPLED = "#e8e8e8", "#4c78a8", "#9ecae9", "#f58518"


def main() -> None:
    """Writes the picture."""
    groups = play(base_config(Path("asset:alfworld-tiny"), "append", "float32"), 3, 8)
    rows = rows_of(groups)
    lengths = np.array([len(row) for row in rows.ids])
    ids = np.zeros((len(rows.ids), lengths.max()), np.int64)
    for number, row in enumerate(rows.ids):
        ids[number, : len(row)] = row
    order, shared = sort_rows(ids, lengths)
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "proxmo", "font.size": 8}
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, sharey=True, layout="constrained")
    padded, packed = ids.size, len(pack(ids, lengths).token_ids)
    for axis, title in zip(axes, (f"padded: {padded:,} tokens", f"packed: {packed:,} tokens"), strict=True):
        axis.set(title=title, xlabel="token of the row")
        axis.spines[:].set_visible(False)
    axes[0].set(ylabel="episodes of three groups")
    for at, (row, common) in enumerate(zip(order, shared, strict=True)):
        axes[0].barh(at, lengths.max(), color=PADDING, height=0.9)
        for axis, start in ((axes[0], 0), (axes[1], int(common))):
            axis.barh(at, lengths[row] - start, left=start, color=CONTEXT, height=0.9)
            for first, last in rows.spans[row]:
                first = max(first, start)
                axis.barh(at, max(0, last - first), left=first, color=SAMPLED, height=0.9)
        if common:
            axes[1].plot([common, common], [at - 0.45, at + 0.45], color=SHARED, linewidth=2)
    for colour, words in ((SAMPLED, "sampled, in the loss"), (CONTEXT, "context"), (PADDING, "padding")):
        axes[1].bar(0, 0, color=colour, label=words)
    axes[1].plot([], [], color=SHARED, linewidth=2, label="what stands before it was computed for the row below")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
