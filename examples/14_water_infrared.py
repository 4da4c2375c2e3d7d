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
from trajectories import EVERY, strongest, trajectory

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_spectrum
from ase_mlelec.physics import spectra

HERE = Path(__file__).parent
TEMPERATURE = 330  # K
MASSES = {"H2O": 1.008, "D2O": 2.014}  # amu
STEPS = {"H2O": 0.5, "D2O": 0.7}  # fs, as many in a vibration
RESOLUTION, SHORTEST = 40.0, 5.0  # cm^-1; ps, whose fifth has that resolution
BANDS = {"H2O": {"libration": (300, 1000), "bend": (1400, 1900), "stretch": (2800, 4000)}}
BANDS["D2O"] = {name: tuple(end / 1.36 for end in band) for name, band in BANDS["H2O"].items()}


def run(model, kind, picoseconds, folder, start=HERE / "data" / "water.extxyz"):
    """Trajectory of ``picoseconds`` of a liquid, kept in the folder."""
    atoms, step = read(start), STEPS[kind]
    atoms.set_masses(np.where(atoms.symbols == "H", MASSES[kind], atoms.get_masses()))
    atoms.calc = DeepWannierCalculator(model, on_extrapolation="warn")
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(0))
    if picoseconds and not (folder / f"{kind}_0000.npz").exists():
        Bussi(atoms, step * units.fs, TEMPERATURE, 50 * units.fs, rng=np.random.default_rng(1)).run(500)
    return trajectory(atoms, folder / kind, picoseconds, step, TEMPERATURE)


def absorption(run, kind, volume, resolution=RESOLUTION, **options):
    """Wavenumbers cm^-1, alpha n cm^-1 and its standard error from five blocks of the trajectory."""

    def spectrum(dipoles):
        return spectra.infrared(
            dipoles, EVERY * STEPS[kind], run["temperature"].mean(), volume, resolution=resolution, **options
        )

    alpha_n, error = spectra.block_error(lambda part: spectrum(part)[1], run["dipoles"])
    return spectrum(run["dipoles"])[0], alpha_n, error


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
        of_kind = run(arguments.model, kind, arguments.time, arguments.output / "14_water")
        found[kind] = absorption(of_kind, kind, volume)
        bands[kind] = {name: strongest(*found[kind][:2], band) for name, band in BANDS[kind].items()}
        print(f"{kind}: " + ", ".join(f"{name} {place:.0f} cm^-1" for name, place in bands[kind].items()), flush=True)
    ratios = (f"{name} {bands['H2O'][name] / bands['D2O'][name]:.3f}" for name in bands["H2O"])
    print("H2O to D2O: " + ", ".join(ratios))
    picture(found, experiment).savefig(arguments.output / "14_water_infrared.png", dpi=120)


if __name__ == "__main__":
    main()
