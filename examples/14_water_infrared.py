"""What do the infrared spectra of liquid water and heavy water look like, and how near are they to experiment?

    python 14_water_infrared.py                                 # 10 ps of each, a quarter of an hour
    python 14_water_infrared.py --time 50 --experiment FILE     # a smoother spectrum, beside a measured one

Molecular dynamics of 64 molecules with classical nuclei at 330 K and 0.993 g/cm^3, the state of the training data.  Every
finished picosecond is kept in output/14_water; a longer run goes on from there.  The file of an experiment has columns of
wavenumber, cm^-1, and absorption times refractive index, 1000 cm^-1.  Writes output/14_water_infrared.png.

Source: after Zhang et al. 2020, Fig. 2.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import thermalize_momenta
from matplotlib.figure import Figure
from tqdm import tqdm

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_spectrum
from ase_mlelec.atomic_write import replacing
from ase_mlelec.physics import spectra

HERE = Path(__file__).parent
TEMPERATURE = 330  # K
MASSES = {"H2O": 1.008, "D2O": 2.014}  # amu
STEPS = {"H2O": 0.5, "D2O": 0.7}  # fs, as many in a vibration
EVERY, FRAME = 4, 40  # steps between dipoles, and between stored positions
RESOLUTION, SHORTEST = 40.0, 5.0  # cm^-1; ps, whose fifth has that resolution
BANDS = {"H2O": {"libration": (300, 1000), "bend": (1400, 1900), "stretch": (2800, 4000)}}
BANDS["D2O"] = {name: tuple(end / 1.36 for end in band) for name, band in BANDS["H2O"].items()}


def trajectory(model, kind, picoseconds, folder, start=HERE / "data" / "water.extxyz"):
    """Run until ``picoseconds`` are kept in the folder; dict of arrays of all of them.

    dipoles [n, 3] e Å every EVERY steps, positions [m, N, 3] Å every FRAME steps (molecules are never wrapped),
    temperature [m] K and conserved energy [m] eV; momenta at the end of each part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    atoms, step = read(start), STEPS[kind] * units.fs
    atoms.set_masses(np.where(atoms.symbols == "H", MASSES[kind], atoms.get_masses()))
    atoms.calc = DeepWannierCalculator(model, on_extrapolation="warn")
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(0))
    known = [np.load(path) for path in sorted(folder.glob(f"{kind}_*.npz"))]
    if known:
        atoms.positions, energy = known[-1]["end"], float(known[-1]["conserved"][-1])
        atoms.set_momenta(known[-1]["momenta"])
    elif picoseconds:
        Bussi(atoms, step, TEMPERATURE, 50 * units.fs, rng=np.random.default_rng(1)).run(500)
        energy = atoms.get_total_energy()
    for number in tqdm(range(len(known), picoseconds), desc=kind, unit=" ps", disable=None):
        part = one_picosecond(atoms, STEPS[kind], energy, np.random.default_rng([2, number]))
        energy = part["conserved"][-1]
        with replacing(folder / f"{kind}_{number:04d}.npz") as partial, open(partial, "wb") as file:
            np.savez(file, **part)
        known.append(part)
    series = "dipoles", "positions", "temperature", "conserved"
    return {name: np.concatenate([part[name] for part in known[:picoseconds]]) for name in series}


def one_picosecond(atoms, step, energy, rng):
    """A part of a trajectory of weakly thermostatted dynamics; ``energy`` is the conserved one at its beginning."""
    dyn = Bussi(atoms, step * units.fs, TEMPERATURE, 2000 * units.fs, rng=rng)
    offset = energy - atoms.get_total_energy()
    found = {"dipoles": [], "positions": [], "temperature": [], "conserved": []}
    for _ in range(round(1000 / step / FRAME)):
        for _ in range(FRAME // EVERY):
            dyn.run(EVERY)
            found["dipoles"].append(atoms.get_dipole_moment())
        found["positions"].append(atoms.positions.astype(np.float32))
        found["temperature"].append(atoms.get_temperature())
        found["conserved"].append(atoms.get_total_energy() - dyn.transferred_energy + offset)
    found = {name: np.array(values) for name, values in found.items()}
    return found | {"end": atoms.positions.copy(), "momenta": atoms.get_momenta()}


def absorption(run, kind, volume, resolution=RESOLUTION, **options):
    """Wavenumbers cm^-1, alpha n cm^-1 and its standard error from five blocks of the trajectory."""

    def spectrum(dipoles):
        return spectra.infrared(
            dipoles, EVERY * STEPS[kind], run["temperature"].mean(), volume, resolution=resolution, **options
        )

    alpha_n, error = spectra.block_error(lambda part: spectrum(part)[1], run["dipoles"])
    return spectrum(run["dipoles"])[0], alpha_n, error


def strongest(wavenumbers, alpha_n, band):
    """Wavenumber of the largest absorption in a band."""
    low, high = band
    return wavenumbers[np.argmax(np.where((wavenumbers > low) & (wavenumbers < high), alpha_n, -np.inf))]


def picture(found, experiment):
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    for ax, kind, color, formula in zip(figure.subplots(1, 2), found, COLORS, ("H$_2$O", "D$_2$O")):
        wavenumbers, alpha_n, error = found[kind]
        plot_spectrum(ax, wavenumbers, alpha_n / 1000, error / 1000, label="model, 330 K", color=color)
        if kind == "H2O" and experiment is not None:
            ax.plot(*experiment.T, color="0.25", lw=1.2, ls="--", label="experiment, 298 K")
        ax.set(title=formula, ylim=(0, None))
        ax.legend(frameon=False, loc="upper left")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="water")
    parser.add_argument("--time", type=int, default=10, help="of each liquid, ps (%(default)s)")
    parser.add_argument("--experiment", type=Path, help="measured absorption of H2O")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    if arguments.time < SHORTEST:
        parser.error(
            f"--time: got {arguments.time} ps, need {SHORTEST:g} for spectra of {RESOLUTION:g} cm^-1 with errors"
        )
    experiment = arguments.experiment and np.loadtxt(arguments.experiment)
    if experiment is not None:
        experiment = experiment[np.argsort(experiment[:, 0])]
    volume, found, bands = read(HERE / "data" / "water.extxyz").get_volume(), {}, {}
    for kind in MASSES:
        run = trajectory(arguments.model, kind, arguments.time, arguments.output / "14_water")
        found[kind] = absorption(run, kind, volume)
        bands[kind] = {name: strongest(*found[kind][:2], band) for name, band in BANDS[kind].items()}
        print(f"{kind}: " + ", ".join(f"{name} {place:.0f} cm^-1" for name, place in bands[kind].items()), flush=True)
    ratios = (f"{name} {bands['H2O'][name] / bands['D2O'][name]:.3f}" for name in bands["H2O"])
    print("H2O to D2O: " + ", ".join(ratios))
    picture(found, experiment).savefig(arguments.output / "14_water_infrared.png", dpi=120)


if __name__ == "__main__":
    main()
