"""Figures of densities of states."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.analysis.plots.style import COLORS, SHADE
from ase_mlelec.quantities import QUANTITIES

ENERGY, DOS = QUANTITIES["energy"].axis, QUANTITIES["dos"].axis


def plot_dos(
    ax: Axes, energies: ArrayLike, dos: NDArray, fermi_level=None, *, align=False, occupied: bool = False, **line
):
    """A density of states over energy; call again to compare temperatures or phases.

    Parameters
    ----------
    energies : array [S], eV
    dos : array [S], states/eV
    fermi_level : float, eV
        Marked by a dashed line in the color of the curve.
    align
        Put the Fermi level at zero.
    occupied
        Shade the states below the Fermi level.
    line : keywords of ``Axes.plot``
        Such as label and color.

    Raises
    ------
    ValueError
        When ``align`` or ``occupied`` has no Fermi level to refer to.
    """
    if fermi_level is None and (align or occupied):
        raise ValueError("got align or occupied without fermi_level; pass fermi_level in eV")
    energies, dos = np.asarray(energies, dtype=float), np.asarray(dos, dtype=float)
    zero = fermi_level if align else 0.0
    (drawn,) = ax.plot(energies - zero, dos, **line)
    if fermi_level is not None:
        ax.axvline(fermi_level - zero, color="0.45" if align else drawn.get_color(), lw=0.9, ls=(0, (4, 3)), zorder=1)
    if occupied:
        ax.fill_between(energies - zero, dos, where=energies <= fermi_level, color=drawn.get_color(), alpha=SHADE, lw=0)
    ax.set_xlabel(r"$E - E_\mathrm{F}$ (eV)" if align else ENERGY)
    ax.set_ylabel(DOS)
    ax.set_xlim(energies[0] - zero, energies[-1] - zero)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    return ax


def plot_dos_comparison(
    ax: Axes, below: Axes, energies: ArrayLike, reference: NDArray, prediction: NDArray, fermi_level=None
) -> tuple:
    """Two densities of states over energy, and their difference in a second panel.

    Parameters
    ----------
    ax, below : Axes of the densities of states and of the difference
    energies : array [S], eV
    reference, prediction : arrays [S], states/eV
    fermi_level : float, eV
        Marked by a dashed line in both.

    Returns
    -------
    (ax, below)

    References
    ----------
    After Ellis et al. 2021, Fig. 3.
    """
    plot_dos(ax, energies, reference, color="black", lw=1.8, label="DFT")
    plot_dos(ax, energies, prediction, color=COLORS[2], lw=1.4, ls=(0, (4, 2)), label="ML-DFT")
    below.plot(energies, np.subtract(prediction, reference), color=COLORS[2], lw=1)
    below.axhline(0, color="0.6", lw=0.9, zorder=0)
    for panel in (ax, below) if fermi_level is not None else ():
        panel.axvline(fermi_level, color="0.45", lw=0.9, ls=(0, (1, 2)), zorder=1)
    ax.legend(frameon=False)
    ax.set_xlabel("")
    ax.tick_params(labelbottom=False)
    below.set(xlabel=ENERGY, ylabel="error", xlim=ax.get_xlim())
    return ax, below


def plot_dos_map(
    ax: Axes, x: NDArray, energies: NDArray, dos: NDArray, fermi_level=None, *, label: str = DOS, cmap: str = "magma"
):
    """Densities of states as colors along x, with the Fermi level as a line and a color bar.

    Parameters
    ----------
    x : array [n], increasing
        Such as time.
    energies : array [S], eV
    dos : array [n, S], states/eV
    fermi_level : array [n], eV
    """
    mesh = ax.pcolormesh(x, energies, np.asarray(dos).T, shading="nearest", cmap=cmap, vmin=0, rasterized=True)
    if fermi_level is not None:
        ax.plot(x, fermi_level, color="white", lw=1.2)
        ax.annotate(
            r"$E_\mathrm{F}$",
            (x[len(x) // 12], np.asarray(fermi_level)[len(x) // 12]),
            xytext=(0, 4),
            textcoords="offset points",
            color="white",
        )
    ax.set_ylabel(ENERGY)
    ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.015)
    return ax
