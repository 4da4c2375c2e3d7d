"""Figures of components, groups and fields."""

import numpy as np

from ase_mlelec.analysis.plots.style import COLORS


def plot_components(ax, scores, values=None, label="", *, cmap="viridis"):
    """Atoms in the plane of two principal components of their density of states, colored by a number per atom.

    Parameters
    ----------
    scores : array [..., 2], states/eV
        From PrincipalComponents.scores.
    values : array [...]
        Such as the order parameter; adds a color bar with ``label``.
    """
    scores = np.asarray(scores).reshape(-1, np.shape(scores)[-1])
    color = {"color": COLORS[0]} if values is None else {"c": np.ravel(values), "cmap": cmap}
    drawn = ax.scatter(scores[:, 0], scores[:, 1], s=5, lw=0, alpha=0.6, rasterized=True, **color)
    ax.set(xlabel="component 1 (states/eV)", ylabel="component 2 (states/eV)")
    if values is not None:
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015).solids.set_alpha(1)
    return ax


def plot_variances(ax, groups, ylabel):
    """Boxes around the middle half of the values of each group, a line at the median, whiskers to the extremes.

    Parameters
    ----------
    groups : dict from name to array [n]
        Such as the variance of a principal component's score in each snapshot.
    ylabel : str
        With the unit.

    References
    ----------
    After Ellis et al. 2021, Fig. 7.
    """
    drawn = ax.boxplot(list(groups.values()), whis=(0, 100), widths=0.5, patch_artist=True)
    for box, median, color in zip(drawn["boxes"], drawn["medians"], COLORS):
        box.set(facecolor=color, alpha=0.6)
        median.set(color="black")
    ax.set_xticks(range(1, len(groups) + 1), list(groups))
    ax.set_ylabel(ylabel)
    return ax


def plot_slice(ax, field, cell, label, **mesh):
    """A field, such as the electron density, on the plane through the origin that the first two cell vectors span.

    Parameters
    ----------
    field : array [G1, G2, G3] on the points (i/G1, k/G2, l/G3) of the cell
        Transpose field and cell for another plane.
    cell : array [3, 3], Å
    label : str
        Label of the color bar, with the unit.
    mesh : keywords of ``Axes.pcolormesh``
        Such as cmap and vmin.
    """
    plane = np.pad(np.asarray(field)[:, :, 0], (0, 1), mode="wrap")
    a, b = np.asarray(cell, dtype=float)[:2]
    along = a / np.linalg.norm(a)
    across = np.linalg.norm(b - (b @ along) * along)
    i, k = np.meshgrid(*(np.linspace(0, 1, n) for n in plane.shape), indexing="ij")
    drawn = ax.pcolormesh(i * np.linalg.norm(a) + k * (b @ along), k * across, plane, shading="gouraud", **mesh)
    ax.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)")
    ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015)
    return ax
