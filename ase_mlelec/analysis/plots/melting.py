"""A page about a run that melts a crystal."""

import numpy as np
from matplotlib.figure import Figure

from ase_mlelec.analysis.plots.curves import plot_series
from ase_mlelec.analysis.plots.densities import plot_dos, plot_dos_map
from ase_mlelec.analysis.plots.style import COLORS


def melting_figure(run, *, title=None):
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
    run = {
        name: run[name]
        for name in (
            "time",
            "temperature",
            "order_parameter",
            "coordination",
            "total_dos",
            "fermi_level",
            "energy_grid",
        )
    }
    time, dos = run["time"] / 1000, run["total_dos"] / run["order_parameter"].shape[1]
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.03)
    page = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    left = page[0].subgridspec(4, 1, height_ratios=(1, 1, 1, 2.1))
    right = page[1].subgridspec(2, 1)
    series = [figure.add_subplot(left[0])]
    series += [figure.add_subplot(left[k], sharex=series[0]) for k in range(1, 4)]
    for ax, name, label, color in zip(
        series,
        ("temperature", "order_parameter", "coordination"),
        ("temperature (K)", "$Q$ (states/eV)", "neighbors"),
        (COLORS[2], COLORS[0], COLORS[3]),
    ):
        plot_series(ax, time, run[name], label, color=color)
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
        histogram.hist(
            run["order_parameter"][part].ravel(), bins=bins, density=True, color=color, alpha=0.55, label=label
        )
    spectra.set_ylabel("DOS (states/eV/atom)")
    spectra.legend(frameon=False, fontsize="small", loc="upper left")
    histogram.set(xlabel="order parameter $Q$ (states/eV)", ylabel="share of atoms", yticks=[])
    histogram.legend(frameon=False, fontsize="small")
