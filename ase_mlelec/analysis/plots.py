"""Figures of densities of states, of spectra and of runs.

Every ``plot_*`` function draws into the Axes it is given and returns it; titles, limits, legends and files are the
caller's.  ``melting_figure`` arranges some of them into a page.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

COLOURS = ("#1f5a8a", "#e0a030", "#c8343f", "#3f8f6b", "#7a5195", "#666666")
SHADE = 0.22  # opacity of bands behind lines


def plot_dos(ax, energies, dos, fermi_level=None, *, align=False, occupied=False, **line):
    """A density of states over energy; call again to compare temperatures or phases.

    energies : array [S], eV
    dos : array [S], states/eV
    fermi_level : float, eV; marked by a dashed line in the colour of the curve
    align : put the Fermi level at zero
    occupied : shade the states below the Fermi level
    line : keywords of ``Axes.plot``, such as label and color

    Raises ValueError when ``align`` or ``occupied`` has no Fermi level to refer to.
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
    ax.set_xlabel(r"$E - E_\mathrm{F}$ (eV)" if align else "energy (eV)")
    ax.set_ylabel("DOS (states/eV)")
    ax.set_xlim(energies[0] - zero, energies[-1] - zero)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    return ax


def plot_dos_comparison(ax, below, energies, reference, prediction, fermi_level=None):
    """Two densities of states over energy, and their difference in a second panel.

    ax, below : Axes of the densities of states and of the difference
    energies : array [S], eV
    reference, prediction : arrays [S], states/eV
    fermi_level : float, eV; marked by a dashed line in both

    Returns (ax, below).

    Source: after Ellis et al. 2021, Fig. 3.
    """
    plot_dos(ax, energies, reference, color="black", lw=1.8, label="DFT")
    plot_dos(ax, energies, prediction, color=COLOURS[2], lw=1.4, ls=(0, (4, 2)), label="ML-DFT")
    below.plot(energies, np.subtract(prediction, reference), color=COLOURS[2], lw=1)
    below.axhline(0, color="0.6", lw=0.9, zorder=0)
    for panel in (ax, below) if fermi_level is not None else ():
        panel.axvline(fermi_level, color="0.45", lw=0.9, ls=(0, (1, 2)), zorder=1)
    ax.legend(frameon=False)
    ax.set_xlabel("")
    ax.tick_params(labelbottom=False)
    below.set(xlabel="energy (eV)", ylabel="error", xlim=ax.get_xlim())
    return ax, below


def plot_dos_map(ax, x, energies, dos, fermi_level=None, *, label="DOS (states/eV)", cmap="magma"):
    """Densities of states as colours along x, with the Fermi level as a line and a colour bar.

    x : array [n], increasing, such as time
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
    ax.set_ylabel("energy (eV)")
    ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.015)
    return ax


def plot_series(ax, x, values, ylabel, **line):
    """A quantity along x; of a quantity per atom the mean, and the range of the middle 80 % of the atoms as a band.

    x : array [n], such as time
    values : array [n] or [n, N]
    ylabel : str, name of the y axis, with the unit
    line : keywords of ``Axes.plot``, such as label and color
    """
    values = np.asarray(values, dtype=float)
    (drawn,) = ax.plot(x, values if values.ndim == 1 else np.nanmean(values, axis=1), **line)
    if values.ndim > 1:
        low, high = np.nanpercentile(values, (10, 90), axis=1)
        ax.fill_between(x, low, high, color=drawn.get_color(), alpha=SHADE, lw=0)
    ax.set_ylabel(ylabel)
    ax.margins(x=0)
    return ax


def plot_parity(ax, reference, prediction, unit="", **points):
    """Prediction against reference with the diagonal, the mean absolute and the root mean square error.

    reference, prediction : arrays of one shape
    unit : str, such as "eV/Å"
    points : keywords of ``Axes.plot``

    Raises ValueError for different shapes.
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
        "color": COLOURS[0],
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


def plot_parity_counts(ax, reference, prediction, unit="", *, cmap="viridis"):
    """Parity of very many numbers, such as a density on a grid: the colour is the number of points, with a colour bar.

    reference, prediction : arrays of one shape, positive
    unit : str, such as "e/Å$^3$"

    The text has the mean and the largest absolute error, and the mean of |prediction/reference - 1|.

    Raises ValueError for different shapes.

    Source: after Ellis et al. 2021, Fig. 4.
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


def plot_parity_groups(ax, reference, prediction, groups, unit=""):
    """Parity of one number per structure; colour and mean absolute error by group, such as the phase.

    reference, prediction : arrays [n]
    groups : sequence [n] of str
    unit : str, such as "eV/atom"

    Raises ValueError for different shapes.

    Source: after Ellis et al. 2021, Figs. 5, 6.
    """
    reference, prediction = _parity_frame(ax, reference, prediction, unit)
    for name, colour, marker in zip(dict.fromkeys(groups), COLOURS, "os^Dvp"):
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
            color=colour,
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


def plot_components(ax, scores, values=None, label="", *, cmap="viridis"):
    """Atoms in the plane of two principal components of their density of states, coloured by a number per atom.

    scores : array [..., 2], states/eV, from PrincipalComponents.scores
    values : array [...], such as the order parameter; adds a colour bar with ``label``
    """
    scores = np.asarray(scores).reshape(-1, np.shape(scores)[-1])
    colour = {"color": COLOURS[0]} if values is None else {"c": np.ravel(values), "cmap": cmap}
    drawn = ax.scatter(scores[:, 0], scores[:, 1], s=5, lw=0, alpha=0.6, rasterized=True, **colour)
    ax.set(xlabel="component 1 (states/eV)", ylabel="component 2 (states/eV)")
    if values is not None:
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015).solids.set_alpha(1)
    return ax


def plot_variances(ax, groups, ylabel):
    """Boxes around the middle half of the values of each group, a line at the median, whiskers to the extremes.

    groups : dict from name to array [n], such as the variance of a principal component's score in each snapshot
    ylabel : str, with the unit

    Source: after Ellis et al. 2021, Fig. 7.
    """
    drawn = ax.boxplot(list(groups.values()), whis=(0, 100), widths=0.5, patch_artist=True)
    for box, median, colour in zip(drawn["boxes"], drawn["medians"], COLOURS):
        box.set(facecolor=colour, alpha=0.6)
        median.set(color="black")
    ax.set_xticks(range(1, len(groups) + 1), list(groups))
    ax.set_ylabel(ylabel)
    return ax


def plot_slice(ax, field, cell, label, **mesh):
    """A field, such as the electron density, on the plane through the origin that the first two cell vectors span.

    field : array [G1, G2, G3] on the points (i/G1, k/G2, l/G3) of the cell; transpose field and cell for another plane
    cell : array [3, 3], Å
    label : str, of the colour bar, with the unit
    mesh : keywords of ``Axes.pcolormesh``, such as cmap and vmin
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


def plot_spectrum(ax, wavenumbers, values, error=None, *, ylabel=r"$\alpha n$ (1000 cm$^{-1}$)", **line):
    """A vibrational spectrum over the wavenumber, with its standard error as a band.

    wavenumbers : array [K], cm^-1
    values, error : arrays [K], in the unit of ylabel, such as an absorption in 1000 cm^-1
    line : keywords of ``Axes.plot``, such as label and color

    Source: after Zhang et al. 2020, Fig. 2.
    """
    (drawn,) = ax.plot(wavenumbers, values, **line)
    if error is not None:
        ax.fill_between(
            wavenumbers, np.subtract(values, error), np.add(values, error), color=drawn.get_color(), alpha=SHADE, lw=0
        )
    ax.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=ylabel)
    ax.margins(x=0)
    return ax


def plot_stack(ax, x, curves, labels, *, cmap="viridis"):
    """Curves above each other, such as spectra at several pressures, each on a base line of its own.

    x : array [K]
    curves : arrays [n, K], drawn from the bottom to the top in one unit; the base lines are as far apart as the mean
        curve is high
    labels : sequence [n] of str, written at the right end of each curve

    Source: after Zhang et al. 2020, Figs. 1, 3.
    """
    curves = np.asarray(curves, dtype=float)
    step = curves.max(axis=1).mean()
    colours = colormaps[cmap](np.linspace(0, 0.85, len(curves)))
    for k, (curve, label, colour) in enumerate(zip(curves, labels, colours, strict=True)):
        ax.plot(x, curve + k * step, color=colour, lw=1.3, zorder=3 + len(curves) - k)
        ax.axhline(k * step, color="0.8", lw=0.6, zorder=0)
        ax.annotate(
            label,
            (1, k * step + curve[-1]),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            ha="right",
            textcoords="offset points",
            fontsize="small",
            color=colour,
        )
    ax.set_yticks([])
    ax.set_ylim(-0.05 * step, (curves + step * np.arange(len(curves))[:, None]).max() + 0.1 * step)
    ax.margins(x=0)
    return ax


def plot_bands(ax, bands, weights=None, label="", *, cmap="coolwarm", **line):
    """Bands along a path, relative to their reference; with weights as points whose colour is the weight ("fat bands").

    bands : ase.spectrum.band_structure.BandStructure; NaN is left out
    weights : array [K, n], between 0 and 1, such as the share of a layer
    label : str of the colour bar
    line : keywords of ``Axes.plot``
    """
    x, ticks, names = bands.path.get_linear_kpoint_axis()
    energies = bands.energies - bands.reference
    if weights is None:
        for spin in energies:
            ax.plot(x, spin, **{"color": COLOURS[0], "lw": 1.2, **line})
    else:
        drawn = ax.scatter(
            np.repeat(x, energies.shape[2]), energies[0].ravel(), 4, np.ravel(weights), cmap=cmap, vmin=0, vmax=1, lw=0
        )
        ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.015)
    for tick in ticks:
        ax.axvline(tick, color="0.7", lw=0.8, zorder=0)
    ax.set_xticks(ticks, [name.replace("G", "Γ") for name in names])
    ax.set_xlim(x[0], x[-1])
    ax.set_ylabel("energy (eV)")
    return ax


def melting_figure(run, *, title=None):
    """A page on a run through a phase transition: temperature, order parameter, coordination and DOS over time; DOS and
    order parameter at the start, half-way through the transition, and at the end.

    run : mapping with "time" [n] fs, "temperature" [n] K, "order_parameter" [n, N] states/eV, "coordination" [n, N],
        "total_dos" [n, S] states/eV, "fermi_level" [n] eV and "energy_grid" [S] eV, such as the ``results`` of an
        ElectronicRecorder

    Returns a matplotlib Figure; save it with ``figure.savefig(path)``.

    Source: after Zeng et al. 2022, Figs. 5-7.
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
    for ax, name, label, colour in zip(
        series,
        ("temperature", "order_parameter", "coordination"),
        ("temperature (K)", "$Q$ (states/eV)", "neighbours"),
        (COLOURS[2], COLOURS[0], COLOURS[3]),
    ):
        plot_series(ax, time, run[name], label, color=colour)
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
    for start, colour in zip((0, half - width // 2, n - width), COLOURS):
        part = slice(max(start, 0), max(start, 0) + width)
        level, kelvin = run["fermi_level"][part].mean(), run["temperature"][part].mean()
        label = f"{time[part].mean():.1f} ps, {kelvin:.0f} K"
        plot_dos(spectra, run["energy_grid"], dos[part].mean(axis=0), level, align=True, color=colour, label=label)
        histogram.hist(
            run["order_parameter"][part].ravel(), bins=bins, density=True, color=colour, alpha=0.55, label=label
        )
    spectra.set_ylabel("DOS (states/eV/atom)")
    spectra.legend(frameon=False, fontsize="small", loc="upper left")
    histogram.set(xlabel="order parameter $Q$ (states/eV)", ylabel="share of atoms", yticks=[])
    histogram.legend(frameon=False, fontsize="small")
