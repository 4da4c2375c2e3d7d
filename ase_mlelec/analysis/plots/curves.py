"""Figures of series, spectra and bands."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ase_mlelec.analysis.plots.style import COLORS, SHADE
from ase_mlelec.quantities import QUANTITIES


def plot_series(ax: Axes, x: ArrayLike, values: ArrayLike, ylabel: str, **line):
    """A quantity along x; of a quantity per atom the mean, and the range of the middle 80 % of the atoms as a band.

    Parameters
    ----------
    x : array [n]
        Such as time.
    values : array [n] or [n, N]
    ylabel : str
        Name of the y axis, with the unit.
    line : keywords of ``Axes.plot``
        Such as label and color.
    """
    values = np.asarray(values, dtype=float)
    (drawn,) = ax.plot(x, values if values.ndim == 1 else np.nanmean(values, axis=1), **line)
    if values.ndim > 1:
        low, high = np.nanpercentile(values, (10, 90), axis=1)
        ax.fill_between(x, low, high, color=drawn.get_color(), alpha=SHADE, lw=0)
    ax.set_ylabel(ylabel)
    ax.margins(x=0)
    return ax


def plot_spectrum(
    ax: Axes,
    wavenumbers: ArrayLike,
    values: ArrayLike,
    error: ArrayLike | None = None,
    *,
    ylabel: str = r"$\alpha n$ (1000 cm$^{-1}$)",
    **line,
):
    """A vibrational spectrum over the wavenumber, with its standard error as a band.

    Parameters
    ----------
    wavenumbers : array [K], cm^-1
    values, error : arrays [K]
        In the unit of ylabel, such as an absorption in 1000 cm^-1.
    line : keywords of ``Axes.plot``
        Such as label and color.

    References
    ----------
    After Zhang et al. 2020, Fig. 2.
    """
    (drawn,) = ax.plot(wavenumbers, values, **line)
    if error is not None:
        ax.fill_between(
            wavenumbers, np.subtract(values, error), np.add(values, error), color=drawn.get_color(), alpha=SHADE, lw=0
        )
    ax.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=ylabel)
    ax.margins(x=0)
    return ax


def plot_stack(ax: Axes, x: ArrayLike, curves, labels: Sequence[str], *, cmap: str = "viridis"):
    """Curves above each other, such as spectra at several pressures, each with a separate base line.

    Parameters
    ----------
    x : array [K]
    curves : arrays [n, K]
        Drawn from the bottom to the top in one unit; the base lines are as far apart as the mean curve is high.
    labels : sequence [n] of str
        Written at the right end of each curve.

    References
    ----------
    After Zhang et al. 2020, Figs. 1, 3.
    """
    curves = np.asarray(curves, dtype=float)
    step = curves.max(axis=1).mean()
    colors = colormaps[cmap](np.linspace(0, 0.85, len(curves)))
    for k, (curve, label, color) in enumerate(zip(curves, labels, colors, strict=True)):
        ax.plot(x, curve + k * step, color=color, lw=1.3, zorder=3 + len(curves) - k)
        ax.axhline(k * step, color="0.8", lw=0.6, zorder=0)
        ax.annotate(
            label,
            (1, k * step + curve[-1]),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            ha="right",
            textcoords="offset points",
            fontsize="small",
            color=color,
        )
    ax.set_yticks([])
    ax.set_ylim(-0.05 * step, (curves + step * np.arange(len(curves))[:, None]).max() + 0.1 * step)
    ax.margins(x=0)
    return ax


def plot_bands(ax: Axes, bands, weights: ArrayLike | None = None, label: str = "", *, cmap: str = "coolwarm", **line):
    """Bands along a path, relative to their reference; with weights as points whose color is the weight ("fat bands").

    Parameters
    ----------
    bands : ase.spectrum.band_structure.BandStructure
        NaN is left out.
    weights : array [K, n]
        Between 0 and 1, such as the share of a layer.
    label : str of the color bar
    line : keywords of ``Axes.plot``
    """
    x, ticks, names = bands.path.get_linear_kpoint_axis()
    energies = bands.energies - bands.reference
    if weights is None:
        for spin in energies:
            ax.plot(x, spin, **{"color": COLORS[0], "lw": 1.2, **line})
    else:
        drawn = ax.scatter(
            np.repeat(x, energies.shape[2]), energies[0].ravel(), 4, np.ravel(weights), cmap=cmap, vmin=0, vmax=1, lw=0
        )
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015)
    for tick in ticks:
        ax.axvline(tick, color="0.7", lw=0.8, zorder=0)
    ax.set_xticks(ticks, [name.replace("G", "Γ") for name in names])
    ax.set_xlim(x[0], x[-1])
    ax.set_ylabel(QUANTITIES["energy"].axis)
    return ax
