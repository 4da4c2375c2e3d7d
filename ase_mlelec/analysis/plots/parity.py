"""Figures of predictions against references, of groups and fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.analysis.plots.curves import COLORS


def plot_parity(
    ax: Axes,
    reference: NDArray,
    prediction: NDArray,
    unit: str = "",
    *,
    deviation: NDArray | None = None,
    **points: Any,
) -> Axes:
    """Prediction against reference with the diagonal, the mean absolute and the root mean square error.

    Parameters
    ----------
    reference, prediction : arrays of one shape
    unit : str
        Such as "eV/Å".
    deviation : array of the same shape
        Standard deviations of the predictions, drawn as error bars.
    points : keywords of ``Axes.plot``

    Raises
    ------
    ValueError
        For different shapes.
    """
    reference, prediction = _parity_frame(ax, reference, prediction, unit)
    error = prediction - reference
    if deviation is not None:
        bars = np.broadcast_to(np.ravel(deviation), reference.shape)
        ax.errorbar(reference, prediction, yerr=bars, fmt="none", ecolor=COLORS[0], elinewidth=0.8, alpha=0.4, zorder=1)
    style: dict[str, Any] = dict(ms=2, alpha=0.3, rasterized=True) if error.size > 2000 else dict(ms=6, alpha=0.8)
    ax.plot(reference, prediction, **(dict(style, ls="", marker=".", mew=0, color=COLORS[0]) | points))
    ax.locator_params(nbins=5)  # numbers such as -107.65 overlap where there are more
    return _write(ax, f"MAE {np.abs(error).mean():.3g} {unit}\nRMSE {np.sqrt((error**2).mean()):.3g} {unit}")


def plot_parity_counts(
    ax: Axes, reference: NDArray, prediction: NDArray, unit: str = "", *, cmap: str = "viridis"
) -> Axes:
    """Parity of very many numbers, such as a density on a grid: the color is the number of points, with a color bar.

    Parameters
    ----------
    reference, prediction : arrays of one shape, positive
    unit : str
        Such as "e/Å$^3$".

    Raises
    ------
    ValueError
        For different shapes.

    Notes
    -----
    The text has the mean and the largest absolute error, and the mean of ``|prediction/reference - 1|``.

    References
    ----------
    After Ellis et al. 2021, Fig. 4.
    """
    reference, prediction = _parity_frame(ax, reference, prediction, unit)
    extent = (*ax.get_xlim(), *ax.get_ylim())
    style: dict[str, Any] = dict(gridsize=90, bins="log", mincnt=1, lw=0.1, rasterized=True)
    drawn = ax.hexbin(reference, prediction, extent=extent, cmap=cmap, **style)
    ax.figure.colorbar(drawn, ax=ax, label="points", pad=0.015)
    error = np.abs(prediction - reference)
    percent = 100 * (error / reference).mean()
    return _write(ax, f"MAE {error.mean():.3g} {unit}\nlargest {error.max():.3g} {unit}\nMAPE {percent:.3g} %")


def plot_parity_groups(
    ax: Axes, reference: NDArray, prediction: NDArray, groups: Sequence[str], unit: str = ""
) -> Axes:
    """Parity of one number per structure; color and mean absolute error by group, such as the phase.

    Parameters
    ----------
    reference, prediction : arrays [n]
    groups : sequence [n] of str
    unit : str
        Such as "eV/atom".

    Raises
    ------
    ValueError
        For different shapes.

    References
    ----------
    After Ellis et al. 2021, Figs. 5, 6.
    """
    reference, prediction = _parity_frame(ax, reference, prediction, unit)
    for name, color, marker in zip(dict.fromkeys(groups), COLORS, "os^Dvp"):
        chosen = np.array([group == name for group in groups])
        error = np.abs(prediction - reference)[chosen].mean()
        style: dict[str, Any] = dict(ls="", marker=marker, ms=5, mew=0, alpha=0.8, color=color)
        ax.plot(reference[chosen], prediction[chosen], label=f"{name}: MAE {error:.3g} {unit}", **style)
    ax.locator_params(nbins=5)
    ax.legend(frameon=False, fontsize="small", loc="lower right", handletextpad=0.2, borderaxespad=0.2)
    return ax


def _parity_frame(ax, reference, prediction, unit):
    """Axes with the diagonal and one range for both; the two arrays, flattened."""
    reference, prediction = np.asarray(reference, dtype=float), np.asarray(prediction, dtype=float)
    if reference.shape != prediction.shape:
        raise ValueError(
            f"got reference {reference.shape} and prediction {prediction.shape}, need one shape; "
            "evaluate the same structures in the same order"
        )
    both = np.concatenate([reference.ravel(), prediction.ravel()])
    pad = 0.04 * (np.ptp(both) or 1.0)
    limits = both.min() - pad, both.max() + pad
    ax.axline((limits[0], limits[0]), slope=1, color="0.6", lw=0.9, zorder=0)
    unit = unit and f" ({unit})"
    ax.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"reference{unit}", ylabel=f"prediction{unit}")
    return reference.ravel(), prediction.ravel()


def _write(ax, text):
    """The Axes with a text in the upper left corner."""
    ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize="small")
    return ax


def plot_variances(ax: Axes, groups: Mapping[str, ArrayLike], ylabel: str) -> Axes:
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


def plot_slice(ax: Axes, field: ArrayLike, cell: ArrayLike, label: str, **mesh: Any) -> Axes:
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
