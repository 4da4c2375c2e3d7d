"""Figures of atoms in the plane of the principal components of their densities of states."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.analysis.plots.curves import COLORS

ORDER = "$Q$ (states/eV)"
MOST_POINTS = 20000  # of a scatter plot; more hide each other


def plot_components(
    ax: Axes, scores: ArrayLike, values: ArrayLike | None = None, label: str = "", *, cmap: str = "viridis"
) -> Axes:
    """Atoms in the plane of two principal components of their density of states, colored by a number per atom.

    Parameters
    ----------
    scores : array [..., 2], states/eV
        From PrincipalComponents.scores. Of more than 20,000 atoms, so many are drawn.
    values : array [...]
        Such as the order parameter; adds a color bar with ``label``.
    """
    points = _points(scores)
    some = slice(None, None, -(-len(points) // MOST_POINTS) or 1)
    color: dict[str, Any] = {"color": COLORS[0]}
    if values is not None:
        color = {"c": np.ravel(np.asarray(values))[some], "cmap": cmap}
    drawn = ax.scatter(points[some, 0], points[some, 1], s=5, lw=0, alpha=0.6, rasterized=True, **color)
    _label(ax)
    if values is not None:
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015).solids.set_alpha(1)  # type: ignore[union-attr]
    return ax


def plot_component_density(ax: Axes, scores: ArrayLike, *, cmap: str = "magma") -> Axes:
    """How many atoms lie where in the plane of two principal components, with a color bar; the scale is logarithmic.

    Parameters
    ----------
    scores : array [..., 2], states/eV
        NaN, which fill up smaller structures, are left out.

    References
    ----------
    After Zeng et al. 2022, Fig. 6a.
    """
    points = _points(scores)
    points = points[np.isfinite(points).all(axis=1)]
    gridsize = int(np.clip(len(points) ** 0.5 / 3, 15, 70))  # some ten atoms in a cell
    style: dict[str, Any] = dict(gridsize=gridsize, bins="log", mincnt=1, lw=0.1, rasterized=True)
    drawn = ax.hexbin(*points.T, cmap=cmap, **style)
    _label(ax)
    ax.figure.colorbar(drawn, ax=ax, label="atoms", pad=0.015)
    return ax


def plot_component_path(ax: Axes, path: ArrayLike, **line: Any) -> Axes:
    """A path through the plane of two principal components, a circle at its start and a square at its end.

    Parameters
    ----------
    path : array [n, 2], states/eV
        Such as the scores of one atom, or the mean of all atoms, in the structures of a trajectory.
    line : keywords of ``Axes.plot``
        Such as label and color.
    """
    path = np.asarray(path, dtype=float)
    style: dict[str, Any] = dict(color="black", lw=1.2) | line
    (drawn,) = ax.plot(path[:, 0], path[:, 1], **style)
    for marker, place in ("o", path[0]), ("s", path[-1]):
        ax.plot(*place, marker=marker, ms=6, mec=drawn.get_color(), mfc="white", ls="")
    return ax


def plot_component_types(ax: Axes, scores: ArrayLike, types: ArrayLike, names: Sequence[str]) -> Axes:
    """Atoms in the plane of two principal components, colored by a class of each, with the share of every class.

    Parameters
    ----------
    scores : array [..., 2], states/eV
        Of more than 20,000 atoms, so many are drawn.
    types : array [...]
        Places in ``names``; such as those of ``structure_types.diamond_structure``. NaN are left out.
    names : sequence of str

    References
    ----------
    After Zeng et al. 2022, Fig. 7c.
    """
    points, kinds = _points(scores), np.ravel(np.asarray(types, dtype=float))
    points, kinds = points[np.isfinite(kinds)], kinds[np.isfinite(kinds)].astype(int)  # without the padding
    some = slice(None, None, -(-len(points) // MOST_POINTS) or 1)
    for kind in np.unique(kinds):
        own = points[some][kinds[some] == kind]
        label = f"{names[kind]}: {100 * (kinds == kind).mean():.0f} %"
        ax.plot(
            *own.T,
            ls="",
            marker=".",
            ms=5 if len(points) < 5000 else 2.5,
            mew=0,
            color=COLORS[kind % len(COLORS)],
            alpha=0.5,
            label=label,
        )
    _label(ax)
    ax.legend(fontsize="small", markerscale=3, handletextpad=0.1)
    return ax


def components_figure(
    scores: ArrayLike,
    order: ArrayLike,
    *,
    variance: ArrayLike | None = None,
    atom: int | None = None,
    types: ArrayLike | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """A page on the ADOS of a run: density of atoms in the principal plane with the mean of all atoms over time, order
    parameter with the path of one atom, and, where they are given, classes of a geometric analysis.

    Parameters
    ----------
    scores : array [n, N, 2], states/eV
        Of the atoms in the structures of a trajectory.
    order : array [n, N], states/eV
        The order parameter.
    variance : array [2]
        Fractions of the variance along the components.
    atom : int
        The atom whose path is drawn; default: the one whose order parameter rises most.
    types : array [n, N]
        Places in ``names``, or NaN.
    names : sequence of str

    Returns
    -------
    matplotlib Figure
        Save it with ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        For an atom that there is not.

    References
    ----------
    After Zeng et al. 2022, Figs. 6 and 7.
    """
    scores, order = np.asarray(scores, dtype=float), np.asarray(order, dtype=float)
    if atom is not None and not 0 <= atom < scores.shape[1]:
        raise ValueError(f"got atom {atom}, need 0 to {scores.shape[1] - 1}")
    rows = 2 if types is None else 3
    figure = Figure(figsize=(4.9 * rows, 4.2), layout="constrained")
    panels = figure.subplots(1, rows, sharex=True, sharey=True)
    plot_component_density(panels[0], scores)
    plot_component_path(panels[0], np.nanmean(scores, axis=1), color="cyan", label="mean of the atoms")
    panels[0].legend(fontsize="small", facecolor="0.85")
    plot_components(panels[1], scores, order, ORDER)
    if len(scores) > 1:
        atom = _most_changed(order) if atom is None else atom
        plot_component_path(panels[1], scores[:, atom], lw=0.8, label=f"atom {atom}")
        panels[1].legend(fontsize="small")
    if types is not None:
        plot_component_types(panels[2], scores, types, names)
    if variance is not None:
        told = " and ".join(f"{100 * part:.0f}" for part in np.asarray(variance)[:2])
        panels[0].set_title(f"{told} % of the variance", fontsize="medium")
    for ax in panels[1:]:
        ax.set_ylabel("")
    return figure


def _most_changed(order: NDArray) -> int:
    """The atom whose order parameter [n, N] rises most from the first to the last quarter of the structures."""
    part = max(1, len(order) // 4)
    return int(np.nan_to_num(order[-part:].mean(axis=0) - order[:part].mean(axis=0), nan=-np.inf).argmax())


def _points(scores):
    """Scores [n, 2] of scores [..., 2]."""
    return np.asarray(scores, dtype=float).reshape(-1, np.shape(scores)[-1])[:, :2]


def _label(ax):
    ax.set(xlabel="component 1 (states/eV)", ylabel="component 2 (states/eV)")
