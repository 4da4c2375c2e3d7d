"""The picture of a round: scores, how the shares and the errors went, and whether error bars foretold the errors."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.active.explore import BEYOND, CANDIDATE, TRUSTED, UNPHYSICAL, UNREACHED
from ase_mlelec.active.scores import SCORES
from ase_mlelec.atomic_write import replacing
from ase_mlelec.quantities import QUANTITIES

COLORS = {TRUSTED: "C0", CANDIDATE: "C1", BEYOND: "C3", UNPHYSICAL: "0.4", UNREACHED: "0.75"}


def draw(
    path: str | PathLike, config: ActiveConfig, summaries: Sequence[dict[str, Any]], frames: Sequence[Atoms]
) -> None:
    """Draw the report of the last of ``summaries``, whose frames are ``frames``."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    (scores, shares), (errors, pairs) = figure.subplots(2, 2)
    last = summaries[-1]
    figure.suptitle(f"Round {last['round']}: {last['labels_before']} labels learned, {last['labels']} new")
    _draw_scores(scores, config, frames)
    _draw_shares(shares, config, summaries)
    _draw_errors(errors, summaries)
    _draw_pairs(pairs, config, summaries)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _axis(config):
    return f"{config.select.quantity} score ({SCORES[config.select.quantity].unit})"


def _draw_scores(ax, config, frames):
    """Histogram of the scores by state, with the trust levels."""
    values = np.array([atoms.info["score"] for atoms in frames])
    states = np.array([atoms.info["state"] for atoms in frames])
    usable = (values > 0) & (values < 1e100)
    if usable.any():
        low, high = values[usable].min(), values[usable].max()
        edges = np.geomspace(low * 0.95, max(high, low * 1.2) * 1.05, 40)
        shown = [state for state in (TRUSTED, CANDIDATE, BEYOND, UNPHYSICAL) if (usable & (states == state)).any()]
        parts = [values[usable & (states == state)] for state in shown]
        ax.hist(parts, edges, stacked=True, color=[COLORS[state] for state in shown], label=shown)
        ax.set_xscale("log")
        for level in (config.select.low, config.select.highest):
            if level:
                ax.axvline(level, color="k", ls="--", lw=1)
        ax.legend(frameon=True)
    ax.set(xlabel=_axis(config), ylabel="frames", title="explored")


def _draw_shares(ax, config, summaries):
    """Shares of the states by round, and the criterion of the end."""
    rounds = [each["round"] for each in summaries]
    below = np.zeros(len(rounds))
    for state, color in COLORS.items():
        totals = [max(sum(each["states"].values()), 1) for each in summaries]
        share = np.array([each["states"].get(state, 0) / total for each, total in zip(summaries, totals)])
        if share.any():
            ax.bar(rounds, share, bottom=below, color=color, label=state, width=0.7)
        below += share
    ax.axhline(1 - config.stop.share, color="k", ls=":", lw=1)
    ax.set(xlabel="round", ylabel="share of frames", title="enough is learned above the dotted line", ylim=(0, 1.02))
    ax.set_xticks(rounds)
    ax.legend(frameon=True, loc="lower left")


def _draw_errors(ax, summaries):
    """Errors on held-out structures, relative to those of the first round."""
    titles = {
        measure.key: f"{measure.title} ({measure.unit})" for row in QUANTITIES.values() for measure in row.measures
    }
    part = next((name for name in ("validation", "test") if summaries[0]["errors"].get(name)), None)
    labels = [each["labels_before"] for each in summaries]
    for key in [] if part is None else summaries[0]["errors"][part]:
        values = [each["errors"].get(part, {}).get(key) for each in summaries]
        if "mean square" in titles.get(key, "") and all(isinstance(value, float) for value in values) and values[0]:
            ax.plot(labels, values, "o-", label=titles[key], ms=4)
    ax.set(xlabel="labels learned", ylabel="error", title=f"errors on {part or 'held-out'} structures")
    ax.set_xticks(sorted({*labels}))
    if ax.lines:
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend
        ax.legend(frameon=False, fontsize="small", loc="upper left")


def _draw_pairs(ax, config, summaries):
    """Errors of the models on structures that were labeled next, against their scores."""
    for each in summaries:
        if each["pairs"]:
            score, error = np.array(each["pairs"]).T
            newest = each is summaries[-1]
            ax.plot(score, error, "o", ms=4, color="C1" if newest else "0.7", zorder=2 + newest)
    if ax.lines:
        ax.set_xscale("log")
        ax.set_yscale("log")
        low, high = ax.get_xlim()
        ax.plot([low, high], [low, high], "k-", lw=0.8)
        ax.plot([low, high], [2 * low, 2 * high], "k:", lw=0.8)
    unit = SCORES[config.select.quantity].unit
    ax.set(
        xlabel=_axis(config), ylabel=f"error before it was learned ({unit})", title="error bars of labeled structures"
    )
