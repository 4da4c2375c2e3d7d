"""Predictions against references."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ase_mlelec.analysis.plots.style import COLORS


def plot_parity(ax: Axes, reference: NDArray, prediction: NDArray, unit: str = "", **points):
    """Prediction against reference with the diagonal, the mean absolute and the root mean square error.

    Parameters
    ----------
    reference, prediction : arrays of one shape
    unit : str
        Such as "eV/Å".
    points : keywords of ``Axes.plot``

    Raises
    ------
    ValueError
        For different shapes.
    """
    reference, prediction = _parity_frame(ax, reference, prediction, unit)
    error = prediction - reference
    many = error.size > 2000
    style = {
        "ls": "",
        "marker": ".",
        "ms": 2 if many else 6,
        "alpha": 0.3 if many else 0.8,
        "mew": 0,
        "color": COLORS[0],
        "rasterized": many,
    }
    ax.plot(reference, prediction, **(style | points))
    ax.text(
        0.04,
        0.96,
        f"MAE {np.abs(error).mean():.3g} {unit}\nRMSE {np.sqrt((error**2).mean()):.3g} {unit}",
        transform=ax.transAxes,
        va="top",
        fontsize="small",
    )
    return ax


def plot_parity_counts(ax: Axes, reference: NDArray, prediction: NDArray, unit: str = "", *, cmap: str = "viridis"):
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
    drawn = ax.hexbin(
        reference, prediction, gridsize=90, extent=extent, bins="log", mincnt=1, cmap=cmap, lw=0.1, rasterized=True
    )
    ax.figure.colorbar(drawn, ax=ax, label="points", pad=0.015)
    error = np.abs(prediction - reference)
    ax.text(
        0.04,
        0.96,
        f"MAE {error.mean():.3g} {unit}\nlargest {error.max():.3g} {unit}\n"
        f"MAPE {100 * (error / reference).mean():.3g} %",
        transform=ax.transAxes,
        va="top",
        fontsize="small",
    )
    return ax


def plot_parity_groups(ax: Axes, reference: NDArray, prediction: NDArray, groups, unit: str = ""):
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
        ax.plot(
            reference[chosen],
            prediction[chosen],
            ls="",
            marker=marker,
            ms=5,
            mew=0,
            alpha=0.8,
            color=color,
            label=f"{name}: MAE {error:.3g} {unit}",
        )
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
    ax.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=f"reference{unit and f' ({unit})'}",
        ylabel=f"prediction{unit and f' ({unit})'}",
    )
    return reference.ravel(), prediction.ravel()
