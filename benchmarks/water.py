"""What the model `water` gets right and wrong: unseen structures, infrared of H2O and D2O, liquid structure, diffusion.

    python benchmarks/water.py --experiment IR_light_expt.txt --time 20      # ps of each liquid; writes WATER.md

The data set, examples/output/water.h5, is made by examples/dft/water.py of data that are not in this repository, and so is
the file of the experiment (lab-cosmo/atomistic-cookbook, of Bertie and Lan 1996).  Molecular dynamics is that of
examples/14_water_infrared.py, which keeps every finished picosecond in examples/output/14_water.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read, write
from ase.optimize import LBFGS
from ase.vibrations import Infrared
from hashes import models_line
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator, load_model
from ase_mlelec.analysis.plots import COLORS, plot_spectrum
from ase_mlelec.data.frames import read_frames
from ase_mlelec.physics import spectra
from ase_mlelec.train.evaluate import errors

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
dynamics, trajectories = map(importlib.import_module, ("14_water_infrared", "trajectories"))

COLUMNS = {
    "data_2": {
        "energy_mae_meV_per_atom": "energy, MAE, meV/atom",
        "energy_rmse_meV_per_atom": "energy, RMSE, meV/atom",
        "forces_mae_meV_per_A": "force, MAE, meV/Å",
        "forces_rmse_meV_per_A": "force, RMSE, meV/Å",
    },
    "atomic_system": {"atomic_dipole_rmse_A": "centroid, RMSE per component, Å"},
    "global_system": {"dipole_rmse_e_A": "dipole of the cell, RMSE per component, e Å"},
}
ELECTRONIC = 1.8  # dielectric constant of the electrons of the liquid, from its refractive index
PAIR = np.linspace(2.2, 6.0, 77)  # Å, edges of g_OO


def table_of_errors(model, frames):
    yield "| structures | quantity | error |"
    yield "|---|---|---|"
    for kind, columns in COLUMNS.items():
        group = frames.select("test").where(lambda frame, kind=kind: frame.kind == kind)
        found = errors(model, group)
        for key, name in columns.items():
            yield f"| {len(group)} of {kind} | {name} | {found[key]:.3g} |"
    dipoles = frames.select("test").where(lambda frame: frame.kind == "global_system")
    spread = 8 * np.std([frame.labels["summed_dipole"] for frame in dipoles], axis=0).mean()
    yield ""
    yield f"Sums of the vectors of the cells of global_system have a standard deviation of {spread:.2f} e Å per component."


# Spectra ------------------------------------------------------------------------------------------------------------


def bands_of(run, kind, volume):
    """Places of the bands, cm^-1, and their standard errors from five blocks."""

    def places(dipoles):
        wavenumbers, alpha_n = spectra.infrared(
            dipoles,
            trajectories.EVERY * dynamics.STEPS[kind],
            run["temperature"].mean(),
            volume,
            resolution=dynamics.RESOLUTION,
        )
        return np.array([trajectories.strongest(wavenumbers, alpha_n, band) for band in dynamics.BANDS[kind].values()])

    return spectra.block_error(places, run["dipoles"])


def table_of_bands(runs, volume, experiment):
    places, bars = zip(*(bands_of(runs[kind], kind, volume) for kind in runs))
    yield "| band | H2O, cm^-1 | measured | D2O, cm^-1 | H2O/D2O |"
    yield "|---|---|---|---|---|"
    for k, (name, band) in enumerate(dynamics.BANDS["H2O"].items()):
        (light, heavy), (first, second) = ([each[k] for each in part] for part in (places, bars))
        ratio = light / heavy
        bar = ratio * np.hypot(first / light, second / heavy)
        measured = "" if experiment is None else f"{trajectories.strongest(*experiment.T, band):.0f}"
        yield f"| {name} | {light:.0f} ± {first:.0f} | {measured} | {heavy:.0f} ± {second:.0f} | {ratio:.3f} ± {bar:.3f} |"


def sum_rule(calc, start, run, kind, n_structures=10):
    """Integral of the spectrum over that of equipartition with Born charges of the model, and its standard error.

    The time derivative of the dipole is sum_i Z_i v_i, whose mean square is kT sum_i Tr(Z_i^T Z_i)/m_i, and so is the
    integral of its spectral density over all frequencies of both signs, divided by 2 pi.
    """
    masses = np.where(start.symbols == "H", dynamics.MASSES[kind], start.get_masses())
    sums, atoms = [], start.copy()
    for positions in run["positions"][:: max(1, len(run["positions"]) // n_structures)]:
        atoms.positions = positions
        sums.append((calc.get_born_charges(atoms) ** 2).sum(axis=(1, 2)) @ (1 / masses))
    step, highest = trajectories.EVERY * dynamics.STEPS[kind], 5500
    temperature, volume = run["temperature"].mean(), start.get_volume()

    def integral(dipoles):
        wavenumbers, alpha_n = spectra.infrared(
            dipoles, step, temperature, volume, max_wavenumber=highest, resolution=dynamics.RESOLUTION
        )
        return np.trapezoid(alpha_n, wavenumbers)

    found, bar = spectra.block_error(integral, run["dipoles"])
    # 1/(6 eps0 c^2 V) sum_i Tr(Z^T Z)/m, per wavenumber: cm^-2
    expected = np.mean(sums) * _per_mass(volume)
    deviation = np.std(sums) / np.sqrt(len(sums)) * _per_mass(volume)
    return found / expected, np.hypot(bar / found, deviation / expected) * found / expected


def _per_mass(volume):
    """Integral of alpha n over wavenumbers, cm^-2, for sum_i Tr(Z^T Z)/m of one e^2/amu.

    It is 1/(12 eps0 c^2 V) of that in SI units: alpha n = beta S(w)/(6 eps0 c V), and S integrates to 2 pi kT of it over
    both signs of w = 2 pi c nu.
    """
    e, amu, eps0, c = units._e, units._amu, units._eps0, units._c
    return e**2 / amu / (12 * eps0 * c**2 * volume * 1e-30) / 1e4


def harmonic(calc, start, folder):
    """Wavenumbers, cm^-1, and intensities, e^2/amu, of the modes of a quenched liquid, dict of (array, array) by kind.

    Forces and dipoles of displaced atoms are kept in the folder, and serve both isotopes.
    """
    atoms, relaxed = start.copy(), folder / "relaxed.extxyz"
    if relaxed.exists():
        atoms = read(relaxed)
    atoms.set_momenta(None)
    atoms.calc = calc
    LBFGS(atoms, logfile=None).run(fmax=0.02, steps=2000)
    folder.mkdir(parents=True, exist_ok=True)
    write(relaxed, atoms)
    found = {}
    for kind, mass in dynamics.MASSES.items():
        atoms.set_masses(np.where(atoms.symbols == "H", mass, start.get_masses()))
        modes = Infrared(atoms, name=str(folder / "modes"), delta=0.01)
        modes.run()
        modes.read()
        found[kind] = modes.get_frequencies().real, modes.intensities * units.Debye**2
    return found


def table_of_modes(found, volume, experiment):
    """Of the experiment: the strongest absorption in a band, and its integral."""
    yield "| band | H2O, cm^-1 | measured | D2O, cm^-1 | H2O/D2O | integral of αn, H2O, 10^6 cm^-2 | measured |"
    yield "|---|---|---|---|---|---|---|"
    for band, (low, high) in dynamics.BANDS["H2O"].items():
        light, heavy = (mean_of_band(*found[kind], dynamics.BANDS[kind][band]) for kind in found)
        wavenumbers, intensities = found["H2O"]
        integral = _per_mass(volume) * intensities[(wavenumbers > low) & (wavenumbers < high)].sum() / 1e6
        place, area = "", ""
        if experiment is not None:
            places, values = experiment[(experiment[:, 0] > low) & (experiment[:, 0] < high)].T
            place, area = f"{places[values.argmax()]:.0f}", f"{np.trapezoid(values, places) / 1000:.2f}"
        yield f"| {band} | {light:.0f} | {place} | {heavy:.0f} | {light / heavy:.3f} | {integral:.2f} | {area} |"


def mean_of_band(wavenumbers, intensities, band):
    """Mean wavenumber of the modes in a band, weighted by their intensity."""
    inside = (wavenumbers > band[0]) & (wavenumbers < band[1])
    return np.average(wavenumbers[inside], weights=intensities[inside])


def picture_of_modes(found, volume, experiment, width=80.0):
    """Spectra of harmonic modes, each a Gaussian of that full width at half maximum, cm^-1, beside the measured one."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax, places, sigma = figure.subplots(), np.arange(0, 4000, 4.0), width / np.sqrt(8 * np.log(2))
    for (kind, (wavenumbers, intensities)), color in zip(found.items(), (COLORS[0], COLORS[2])):
        lines = np.exp(-(((places[:, None] - wavenumbers) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
        plot_spectrum(
            ax, places, _per_mass(volume) * lines @ intensities / 1000, label=f"{kind}, harmonic", color=color
        )
    if experiment is not None:
        ax.plot(*experiment.T, color="0.25", lw=1.2, ls="--", label="H2O, experiment, 298 K")
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    return figure


# Structure and motion -----------------------------------------------------------------------------------------------


def first_peak(run, start):
    """Place, Å, and height of the first peak of g_OO, and its standard errors from five blocks."""
    oxygen, side = start.numbers == 8, start.cell.lengths()[0]

    def peak(positions):
        places = positions[:, oxygen]
        delta = places[:, :, None] - places[:, None]
        distances = np.linalg.norm(delta - side * np.round(delta / side), axis=-1)
        counts, _ = np.histogram(distances[:, *np.triu_indices(oxygen.sum(), 1)], PAIR)
        shells = 4 / 3 * np.pi * np.diff(PAIR**3) / side**3
        g = counts / (len(places) * oxygen.sum() * (oxygen.sum() - 1) / 2 * shells)
        middle = (PAIR[1:] + PAIR[:-1]) / 2
        top = np.argmax(np.where(middle < 3.3, g, 0))
        a, b, _ = np.polyfit(middle[top - 2 : top + 3], g[top - 2 : top + 3], 2)
        return np.array([-b / (2 * a), g[top]])

    return spectra.block_error(peak, run["positions"][::4].astype(float))


def diffusion(run, start, kind):
    """Self-diffusion coefficient of oxygen, Å^2/ps, in this cell, and its standard error from four blocks."""
    oxygen, frame = start.numbers == 8, trajectories.FRAME * dynamics.STEPS[kind] / 1000

    def slope(positions):
        places = positions[:, oxygen].astype(float)
        places -= places.mean(axis=1, keepdims=True)
        n = len(places)
        lags = np.unique(np.linspace(0.2 * n, 0.5 * n, 10).astype(int))
        squares = [((places[lag:] - places[:-lag]) ** 2).sum(axis=-1).mean() for lag in lags]
        return np.polyfit(lags * frame, squares, 1)[0] / 6

    return spectra.block_error(slope, run["positions"], 4)


def table_of_runs(runs, start, calc):
    columns = {kind: dict(measured(run, kind, start, calc)) for kind, run in runs.items()}
    yield "| | " + " | ".join(runs) + " |"
    yield "|---|---|---|"
    for name in next(iter(columns.values())):
        yield f"| {name} | {' | '.join(column[name] for column in columns.values())} |"


def measured(run, kind, start, calc):
    """Iterator over (what it is, value with its standard error) of a run."""
    temperature, volume = run["temperature"].mean(), start.get_volume()
    times = np.arange(1, len(run["conserved"]) + 1) * trajectories.FRAME * dynamics.STEPS[kind] / 1000  # ps
    drift = np.polyfit(times, run["conserved"], 1)[0] / len(start)
    yield "length, ps", f"{times[-1]:.1f}"
    yield "temperature, K", f"{temperature:.0f}"
    yield "drift of the conserved energy, meV/atom/ps", f"{1000 * drift:.4f}"
    yield (
        "integral of the spectrum, of that by Born charges",
        "{:.3f} ± {:.3f}".format(*sum_rule(calc, start, run, kind)),
    )
    peak, bar = first_peak(run, start)
    yield "first peak of g_OO, Å", f"{peak[0]:.3f} ± {bar[0]:.3f}"
    yield "its height", f"{peak[1]:.2f} ± {bar[1]:.2f}"
    yield "diffusion in this cell, Å^2/ps", "{:.2f} ± {:.2f}".format(*diffusion(run, start, kind))
    dipoles = run["dipoles"] + dipole_of_whole_molecules(calc, start) - calc.get_dipole_moment(start)
    yield "mean dipole, e Å, of a root mean square of", f"{np.linalg.norm(dipoles.mean(0)):.1f}, {rms(dipoles):.1f}"
    constant = spectra.block_error(
        lambda part: spectra.dielectric_constant(part, temperature, volume, ELECTRONIC, zero_mean=True), dipoles
    )
    yield "static dielectric constant", "{:.0f} ± {:.0f}".format(*constant)


def rms(vectors):
    return np.sqrt((vectors**2).sum(axis=1).mean())


def dipole_of_whole_molecules(calc, atoms):
    """Dipole, e Å, with every hydrogen beside its oxygen: a branch on which the mean of a liquid is zero."""
    whole, oxygen = atoms.copy(), np.flatnonzero(atoms.numbers == 8)
    for k in np.flatnonzero(atoms.numbers == 1):
        bonds = atoms.get_distances(k, oxygen, mic=True, vector=True)
        nearest = np.linalg.norm(bonds, axis=1).argmin()
        whole.positions[k] = atoms.positions[oxygen[nearest]] - bonds[nearest]
    return calc.get_dipole_moment(whole)


def of_runs(picoseconds, start, calc, experiment):
    """Lines about molecular dynamics of both liquids."""
    folder = EXAMPLES / "output" / "14_water"
    runs = {kind: dynamics.run("water", kind, picoseconds, folder) for kind in dynamics.MASSES}
    return [
        "## Bands of the infrared spectra",
        "",
        f"64 molecules, classical nuclei, {dynamics.TEMPERATURE} K; resolution {dynamics.RESOLUTION:g} cm^-1; errors from "
        "five blocks.",
        "",
        *table_of_bands(runs, start.get_volume(), experiment),
        "",
        "## Molecular dynamics",
        "",
        *table_of_runs(runs, start, calc),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=EXAMPLES / "output" / "water.h5")
    parser.add_argument("--experiment", type=Path)
    parser.add_argument("--time", type=int, default=20, help="of each liquid, ps (%(default)s); 0: none")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    model, start = load_model("water"), read(EXAMPLES / "data" / "water.extxyz")
    calc = DeepWannierCalculator(model, on_extrapolation="ignore")
    experiment = arguments.experiment and np.loadtxt(arguments.experiment)
    if experiment is not None:
        experiment = experiment[np.argsort(experiment[:, 0])]
    lines = [
        "# Accuracy of the model `water`",
        "",
        f"Regenerated by `python benchmarks/water.py --experiment IR_light_expt.txt --time {arguments.time}`.",
        "",
        models_line("water"),
        "",
        "## Structures that were never used in training",
        "",
        *table_of_errors(model, read_frames(arguments.data)),
        "",
    ]
    modes = harmonic(calc, start, EXAMPLES / "output" / "water_modes")
    picture_of_modes(modes, start.get_volume(), experiment).savefig(arguments.output / "water_modes.png", dpi=100)
    lines += [
        "## Harmonic modes of a quenched liquid",
        "",
        "64 molecules, relaxed from a structure of molecular dynamics at constant volume, which is colder than the training "
        "data; means weighted by the infrared intensity. water_modes.png has the spectrum, each mode 80 cm^-1 wide.",
        "",
        *table_of_modes(modes, start.get_volume(), experiment),
        "",
    ]
    print("\n".join(lines), flush=True)
    if arguments.time:
        lines += of_runs(arguments.time, start, calc, experiment)
    (arguments.output / "WATER.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
