"""Draws the pictures of docs/advantages.md: `python docs/figures/advantages.py`. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

from proxmo_rllib.advantages import TurnTable, estimate_advantages, returns_to_go
from proxmo_rllib.advantages.modulation import modulation
from proxmo_rllib.advantages.tfidf import tfidf_vectors
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN, TWO_CHARACTER_PATTERN

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent
SIZE = (4.2, 2.6)  # inches
# Text stays text, and the same input gives the same file.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "proxmo",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def modulation_curves() -> Figure:
    """The factor on successes and on failures, over the success rate of the group."""
    rate = np.linspace(0, 1, 101)
    figure, axes = plt.subplots(figsize=SIZE)
    for alpha, line in ((1.0, ":"), (4.0, "-")):
        for success, colour in ((1.0, "tab:green"), (0.0, "tab:red")):
            factor = modulation(np.full_like(rate, success), rate, alpha=alpha, beta=0.1)
            label = f"{'success' if success else 'failure'}, alpha {alpha:g}"
            axes.plot(rate, factor, line, color=colour, label=label)
    axes.axhline(1.0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="success rate p of the group", ylabel="modulation w", title="beta 0.1")
    axes.legend(fontsize=6)
    return figure


def modulation_lost() -> Figure:
    """What is left of the modulation in the official code, whose p comes from rewards of 10."""
    wins = np.arange(1, 8)
    ours, official = [], []
    for won in wins:
        success = [True] * won + [False] * (8 - won)
        table = TurnTable(
            group=[0] * 8, episode=range(8), reward=[10.0 * s for s in success], success=success, anchor=["x"] * 8
        )
        ours.append(estimate_advantages(table, "proxmo", psc_range=0.05).modulation[0])
        official.append(estimate_advantages(table, "proxmo_official").modulation[0])
    figure, axes = plt.subplots(figsize=SIZE)
    axes.plot(wins, ours, "o-", color="tab:green", label="p = success rate (proxmo)")
    axes.plot(wins, official, "s--", color="tab:grey", label="p = clamped mean reward (proxmo_official)")
    axes.set(xlabel="successes among 8 episodes, reward 10 each", ylabel="w of a success", title="range 0.05")
    axes.legend(fontsize=6)
    return figure


def mean_over_turns() -> Figure:
    """Episode advantage of the one success among two, as the failure gets longer."""
    lengths = np.arange(1, 51)
    curves: dict[str, list[float]] = {"episodes": [], "turns": []}
    for length in lengths.tolist():
        table = TurnTable(
            group=[0] * (10 + length),
            episode=[0] * 10 + [1] * length,
            reward=[0.0] * (10 + length),
            success=[True] * 10 + [False] * length,
            anchor=["x"] * (10 + length),
        )
        for over, values in curves.items():
            values.append(float(estimate_advantages(table, "dr_grpo", episode_mean_over=over).episode[0]))
    figure, axes = plt.subplots(figsize=SIZE)
    for (over, values), line in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(lengths, values, line, label=f"mean over {over}")
    axes.set(xlabel="turns of the failure (the success has 10)", ylabel="R - mean of the success", ylim=(0, 1))
    axes.legend(fontsize=6)
    return figure


def one_character_words() -> Figure:
    """Cosines between places that differ in their number only, with and without one-character words."""
    places = ["drawer 1", "drawer 2", "shelf 1", "shelf 2"]
    figure, both = plt.subplots(1, 2, figsize=SIZE, layout="constrained")
    titles = {"proxmo": TOKEN_PATTERN, "official code": TWO_CHARACTER_PATTERN}
    for axes, (title, pattern) in zip(both, titles.items(), strict=True):
        vectors = tfidf_vectors(places, np.ones(len(places)), token_pattern=pattern)
        cosine = (vectors @ vectors.T).toarray()
        axes.imshow(cosine, cmap="Blues", vmin=0, vmax=1.4)
        for (row, column), value in np.ndenumerate(cosine):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(places)), places, rotation=60)
        axes.set_yticks(range(len(places)), places if axes is both[0] else [])
        axes.set_title(title)
    return figure


def walk(seed: int = 0) -> TurnTable:
    """A group of 8 episodes that wander between a few places; half of them succeed."""
    rng = np.random.default_rng(seed)
    rows = []
    for episode in range(8):
        success = episode % 2 == 0
        length = int(rng.integers(4, 9)) if success else 10
        for step in range(length):
            place, thing = rng.choice(["drawer", "shelf", "fridge"]), rng.choice(["mug", "egg", "pan"])
            anchor = f"On the {place} {rng.integers(1, 4)}, you see a {thing} {rng.integers(1, 3)}."
            rows.append((0, episode, float(success and step == length - 1), success, anchor))
    group, episodes, reward, successes, anchors = zip(*rows, strict=True)
    return TurnTable(group=group, episode=episodes, reward=reward, success=successes, anchor=anchors)


def soft_baseline() -> Figure:
    """From exact grouping to the mean of the group: how many turns stand behind a baseline, over the temperature."""
    table = walk()
    temperatures = np.logspace(-2.5, 1.5, 40)
    sizes, own = [], []
    for temperature in temperatures:
        scalars = estimate_advantages(table, "proxmo", psa_temperature=float(temperature)).diagnostics()
        sizes.append(scalars["step/neighbourhood_mean"])
        own.append(scalars["step/self_weight_mean"])
    figure, axes = plt.subplots(figsize=SIZE)
    axes.semilogx(temperatures, sizes, color="tab:blue")
    axes.set(xlabel="temperature tau", ylabel="effective neighbours 1 / sum w²", title=f"a group of {len(table)} turns")
    axes.yaxis.label.set_color("tab:blue")
    axes.axvline(0.1, color="0.8", linewidth=0.8, zorder=0)
    second = axes.twinx()
    second.semilogx(temperatures, own, color="tab:orange")
    second.set(ylabel="weight of the turn itself", ylim=(0, 1))
    second.yaxis.label.set_color("tab:orange")
    second.spines["right"].set_visible(True)
    return figure


def self_included() -> Figure:
    """Step advantages with the turn in its own baseline, against those without."""
    table = walk()
    without = estimate_advantages(table, "proxmo", include_self=False).step
    figure, axes = plt.subplots(figsize=SIZE)
    axes.axline((0, 0), slope=1, color="0.8", linewidth=0.8, zorder=0)
    for temperature, marker in ((0.3, "."), (0.1, "x")):
        options = {"psa_temperature": temperature}
        other = estimate_advantages(table, "proxmo", include_self=False, **options).step
        axes.plot(
            other, estimate_advantages(table, "proxmo", **options).step, marker, ms=4, label=f"tau {temperature:g}"
        )
    limit = 1.1 * float(np.abs(without).max())
    axes.set(xlabel="A_S without the turn itself", ylabel="A_S with it", xlim=(-limit, limit), ylim=(-limit, limit))
    axes.legend(fontsize=6)
    return figure


def time_pooling() -> Figure:
    """Returns to go rise towards the end of a success: what pooling over time mixes."""
    table = walk()
    returns = returns_to_go(table, 0.95)
    figure, axes = plt.subplots(figsize=SIZE)
    for success, colour in ((True, "tab:green"), (False, "tab:red")):
        chosen = np.asarray(table.success) == success
        axes.plot(
            table.time_step[chosen], returns[chosen], ".", color=colour, label="success" if success else "failure"
        )
    pools = {"all": "-", 1: "--", "step": ":"}
    steps = np.unique(table.time_step)
    for pooling, line in pools.items():
        advantages = estimate_advantages(table, "proxmo", time_pooling=pooling, psa_temperature=0.3)
        baseline = returns - advantages.step
        axes.plot(steps, [baseline[table.time_step == s].mean() for s in steps], line, color="0.3", label=repr(pooling))
    axes.set(xlabel="time step", ylabel="return to go; mean baseline")
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), title="time_pooling", title_fontsize=6)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "modulation": modulation_curves,
    "modulation_lost": modulation_lost,
    "mean_over": mean_over_turns,
    "one_character_words": one_character_words,
    "soft_baseline": soft_baseline,
    "self_included": self_included,
    "time_pooling": time_pooling,
}


def main(folder: Path = HERE) -> None:
    """Writes one SVG a mechanism."""
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = draw()
            figure.savefig(folder / f"advantages_{name}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
