"""Figures of series, spectra, bands and densities of states, and a page about a run that melts a crystal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.quantities import QUANTITIES

if TYPE_CHECKING:
    from ase.spectrum.band_structure import BandStructure

COLORS = ("#1f5a8a", "#e0a030", "#c8343f", "#3f8f6b", "#7a5195", "#666666")
SHADE = 0.22  # opacity of bands behind lines
ENERGY, DOS = QUANTITIES["energy"].axis, QUANTITIES["dos"].axis


def plot_series(ax: Axes, x: ArrayLike, values: ArrayLike, ylabel: str, **line: Any) -> Axes:
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
    **line: Any,
) -> Axes:
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
        band = np.subtract(values, error), np.add(values, error)
        ax.fill_between(wavenumbers, *band, color=drawn.get_color(), alpha=SHADE, lw=0)
    ax.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=ylabel)
    ax.margins(x=0)
    return ax


def plot_stack(
    ax: Axes,
    x: ArrayLike,
    curves: ArrayLike,
    labels: Sequence[str],
    *,
    errors: ArrayLike | None = None,
    cmap: str = "viridis",
) -> Axes:
    """Curves above each other, such as spectra at several pressures, each with a separate base line.

    Parameters
    ----------
    x : array [K]
    curves : arrays [n, K]
        Drawn from the bottom to the top in one unit; the base lines are as far apart as the mean curve is high.
    labels : sequence [n] of str
        Written at the right end of each curve.
    errors : arrays [n, K], optional
        Standard errors of the curves, drawn as bands.

    References
    ----------
    After Zhang et al. 2020, Figs. 1, 3.
    """
    curves = np.asarray(curves, dtype=float)
    step = curves.max(axis=1).mean()
    colors = colormaps[cmap](np.linspace(0, 0.85, len(curves)))
    for k, (curve, label, color) in enumerate(zip(curves, labels, colors, strict=True)):
        ax.plot(x, curve + k * step, color=color, lw=1.3, zorder=3 + len(curves) - k)
        if errors is not None:
            error = np.asarray(errors, dtype=float)[k]
            ax.fill_between(x, curve + k * step - error, curve + k * step + error, color=color, alpha=0.3, lw=0)
        ax.axhline(k * step, color="0.8", lw=0.6, zorder=0)
        place: dict[str, Any] = dict(
            xycoords=("axes fraction", "data"), xytext=(-3, 3), textcoords="offset points", ha="right"
        )
        ax.annotate(label, (1, k * step + curve[-1]), fontsize="small", color=color, **place)
    ax.set_yticks([])
    ax.set_ylim(-0.05 * step, (curves + step * np.arange(len(curves))[:, None]).max() + 0.1 * step)
    ax.margins(x=0)
    return ax


def plot_bands(
    ax: Axes,
    bands: "BandStructure",
    weights: ArrayLike | None = None,
    label: str = "",
    *,
    cmap: str = "coolwarm",
    deviations: ArrayLike | None = None,
    **line: Any,
) -> Axes:
    """Bands along a path, relative to their reference; with weights as points whose color is the weight ("fat bands").

    Parameters
    ----------
    bands : ase.spectrum.band_structure.BandStructure
        NaN is left out.
    weights : array [K, n]
        Between 0 and 1, such as the share of a layer.
    label : str of the color bar
    deviations : array of the shape of ``bands.energies``, eV
        Standard deviations, drawn as a shade of one around every band.
    line : keywords of ``Axes.plot``
    """
    x, ticks, names = bands.path.get_linear_kpoint_axis()
    energies = bands.energies - bands.reference
    breaks = np.flatnonzero(np.diff(x) == 0) + 1  # of a path such as GM,XG, over which no line is drawn

    def broken(values):
        return np.insert(np.asarray(values, dtype=float), breaks, np.nan, axis=0)

    if deviations is not None:
        for band, bar in zip(np.concatenate(energies, axis=1).T, np.concatenate(np.asarray(deviations), axis=1).T):
            ax.fill_between(broken(x), broken(band - bar), broken(band + bar), color=COLORS[0], alpha=0.25, lw=0)
    if weights is None:
        for spin in energies:
            ax.plot(broken(x), broken(spin), **{"color": COLORS[0], "lw": 1.2, **line})
    else:
        points = np.repeat(x, energies.shape[2]), energies[0].ravel()
        drawn = ax.scatter(*points, s=4, c=np.ravel(weights), cmap=cmap, vmin=0, vmax=1, lw=0)
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015)
    at: dict[float, list[str]] = {}  # two names at a break
    for tick, name in zip(ticks, names):
        at.setdefault(float(tick), []).append(name.replace("G", "Γ"))
    for tick in at:
        ax.axvline(tick, color="0.7", lw=0.8, zorder=0)
    ax.set_xticks(list(at), ["|".join(both) for both in at.values()])
    ax.set_xlim(x[0], x[-1])
    ax.set_ylabel(ENERGY)
    return ax


def plot_dos(
    ax: Axes,
    energies: ArrayLike,
    dos: NDArray,
    fermi_level: float | None = None,
    *,
    align: bool = False,
    occupied: bool = False,
    **line: Any,
) -> Axes:
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
        ax.axvline(fermi_level - zero, color="0.45" if align else drawn.get_color(), lw=0.9, ls=(0, (4, 3)), zorder=1)  # type: ignore[operator]
    if occupied:
        below = np.append(energies[energies < fermi_level], fermi_level)  # type: ignore[arg-type]
        ax.fill_between(below - zero, np.interp(below, energies, dos), color=drawn.get_color(), alpha=SHADE, lw=0)
    ax.set_xlabel(r"$E - E_\mathrm{F}$ (eV)" if align else ENERGY)
    ax.set_ylabel(DOS)
    ax.set_xlim(energies[0] - zero, energies[-1] - zero)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    return ax


def plot_dos_comparison(
    ax: Axes,
    below: Axes,
    energies: ArrayLike,
    reference: NDArray,
    prediction: NDArray,
    fermi_level: float | None = None,
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
        panel.axvline(fermi_level, color="0.45", lw=0.9, ls=(0, (1, 2)), zorder=1)  # type: ignore[arg-type]
    ax.legend(frameon=False)
    ax.set_xlabel("")
    ax.tick_params(labelbottom=False)
    below.set(xlabel=ENERGY, ylabel="error", xlim=ax.get_xlim())
    return ax, below


def plot_dos_map(
    ax: Axes,
    x: NDArray,
    energies: NDArray,
    dos: NDArray,
    fermi_level: ArrayLike | None = None,
    *,
    label: str = DOS,
    cmap: str = "magma",
) -> Axes:
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
        place = x[len(x) // 12], np.asarray(fermi_level)[len(x) // 12]
        ax.annotate(r"$E_\mathrm{F}$", place, xytext=(0, 4), textcoords="offset points", color="white")
    ax.set_ylabel(ENERGY)
    ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.015)
    return ax


def melting_figure(run: Mapping[str, NDArray], *, title: str | None = None) -> Figure:
    """A page on a run through a phase transition: temperature, order parameter, coordination and DOS over time; DOS and
    order parameter at the start, half-way through the transition, and at the end.

    Parameters
    ----------
    run : mapping
        With "time" [n] fs, "temperature" [n] K, "order_parameter" [n, N] states/eV, "coordination" [n, N], "total_dos"
        [n, S] states/eV, "fermi_level" [n] eV and "energy_grid" [S] eV, such as the ``results`` of an
        ElectronicRecorder.

    Returns
    -------
    matplotlib Figure
        Save it with ``figure.savefig(path)``.

    References
    ----------
    After Zeng et al. 2022, Figs. 5-7.
    """
    needed = "time temperature order_parameter coordination total_dos fermi_level energy_grid"
    run = {name: run[name] for name in needed.split()}  # read once, where they are in a file
    time, dos = run["time"] / 1000, run["total_dos"] / run["order_parameter"].shape[1]
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    page = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    left = page[0].subgridspec(4, 1, height_ratios=(1, 1, 1, 2.1))
    right = page[1].subgridspec(2, 1)
    series = [figure.add_subplot(left[0])]
    series += [figure.add_subplot(left[k], sharex=series[0]) for k in range(1, 4)]
    rows = (
        (2, "temperature", "temperature (K)"),
        (0, "order_parameter", "$Q$ (states/eV)"),
        (3, "coordination", "neighbors"),
    )
    for ax, (color, name, label) in zip(series, rows):
        plot_series(ax, time, run[name], label, color=COLORS[color])
        ax.tick_params(labelbottom=False)
    plot_dos_map(series[3], time, run["energy_grid"], dos, run["fermi_level"], label="DOS (states/eV/atom)")
    series[3].set_xlabel("time (ps)")
    spectra, histogram = figure.add_subplot(right[0]), figure.add_subplot(right[1])
    _compare_stages(spectra, histogram, run, time, dos)
    for k, ax in enumerate((*series, spectra, histogram)):
        ax.set_title(f"({'abcdef'[k]})", loc="left", fontsize="medium", pad=3)
        if ax is not series[3]:
            ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    return figure


def _compare_stages(spectra, histogram, run, time, dos):
    """Spectra and distribution of the order parameter at start, transition and end: means over a tenth of the run."""
    n, width = len(time), max(1, len(time) // 10)
    order = np.nanmean(run["order_parameter"], axis=1)
    half = int(np.abs(order - (order[:width].mean() + order[-width:].mean()) / 2).argmin())
    bins = np.linspace(np.nanmin(run["order_parameter"]), np.nanmax(run["order_parameter"]) + 1e-9, 41)
    for start, color in zip((0, half - width // 2, n - width), COLORS):
        part = slice(max(start, 0), max(start, 0) + width)
        level, kelvin = run["fermi_level"][part].mean(), run["temperature"][part].mean()
        label = f"{time[part].mean():.1f} ps, {kelvin:.0f} K"
        plot_dos(spectra, run["energy_grid"], dos[part].mean(axis=0), level, align=True, color=color, label=label)
        values = run["order_parameter"][part].ravel()
        histogram.hist(values, bins=bins, density=True, color=color, alpha=0.55, label=label)
    spectra.set_ylabel("DOS (states/eV/atom)")
    spectra.legend(frameon=False, fontsize="small", loc="upper left")
    histogram.set(xlabel="order parameter $Q$ (states/eV)", ylabel="share of atoms", yticks=[])
    histogram.legend(frameon=False, fontsize="small")
