"""What does the infrared spectrum of ice say about its protons under pressure; and that of heavy ice?

    python 07_ice_infrared.py                           # 16 molecules, 5 ps at each pressure, about 15 minutes
    python 07_ice_infrared.py --repeat 4 --time 500     # 128 molecules and 0.5 ns, as in the paper

Molecular dynamics at 300 K with classical nuclei; every run begins from ice at the pressure before it.  In the paper the
stretching band at about 3000 cm^-1 softens with pressure, the spectrum changes suddenly near 70 GPa, and two strong bands
follow, which harden.  Every finished picosecond is kept in output/07_ice; a longer run goes on from there.  Writes
output/07_ice_infrared.png.

Source: after Zhang et al. 2020, Figs. 2 and 3.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ase.io import read
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_spectrum, plot_stack
from ase_mlelec.physics import spectra

sys.path.insert(0, str(Path(__file__).parent / "dft"))
from ice_dynamics import STEP, chain, pressure_of
from trajectories import EVERY, strongest, trajectory

HERE = Path(__file__).parent
TEMPERATURE = 300  # K
RESOLUTION, N_BLOCKS = 80.0, 5  # cm^-1, or what a block of the run allows
DEUTERIUM = 2.014  # amu
PAPER = 3000, 70  # cm^-1, stretching band at the lowest pressures; GPa, where the spectrum changes


def add_options(parser):
    """Options of the runs."""
    parser.add_argument("--model", default="ice")
    parser.add_argument(
        "--pressures", type=int, nargs="+", default=[20, 40, 60, 80, 110], help="GPa, in turn, up and down"
    )
    parser.add_argument("--repeat", type=int, default=2, help="2: 16 molecules (default), 4: 128 molecules")
    parser.add_argument("--time", type=int, default=5, help="of each run at least, ps (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")


def folder_of(arguments):
    """Where the runs are kept."""
    return arguments.output / "07_ice" / f"{2 * arguments.repeat**3}_molecules"


def runs(calc, arguments):
    """Iterator over (name, Atoms at the beginning, trajectory) of all pressures; kept in the folder."""
    if arguments.time < 1:
        raise SystemExit(f"--time: got {arguments.time} ps, need 1 or more")
    folder = folder_of(arguments)
    starts = chain(calc, arguments.pressures, folder, arguments.repeat, TEMPERATURE)
    for pressure, (name, atoms) in zip(arguments.pressures, starts):
        yield name, atoms.copy(), dynamics(atoms, folder / name, arguments.time, pressure)


def dynamics(atoms, path, picoseconds, seed):
    pressure = {"pressure": lambda atoms: pressure_of(atoms.get_stress(voigt=False, include_ideal_gas=True))}
    return trajectory(atoms, path, picoseconds, STEP, TEMPERATURE, seed, pressure)


def heavy_spectrum(calc, folder, pressure, picoseconds):
    """As ``absorption``, of D2O that begins as H2O at the pressure does, with momenta of the same temperature."""
    atoms = read(folder / f"{pressure}GPa.extxyz")
    light, momenta = atoms.get_masses(), atoms.get_momenta()
    atoms.set_masses(np.where(atoms.symbols == "H", DEUTERIUM, light))
    atoms.set_momenta(momenta * np.sqrt(atoms.get_masses() / light)[:, None])
    atoms.calc = calc
    return absorption(dynamics(atoms, folder / f"heavy_{pressure}GPa", picoseconds, pressure), atoms.get_volume())


def spectrum(dipoles, run, volume):
    """Wavenumbers cm^-1 and alpha n cm^-1 of some of the dipoles of a run, at the resolution that a block allows."""
    step = EVERY * STEP
    finest = 1.01 * spectra.finest_resolution(step * (len(run["dipoles"]) // N_BLOCKS))
    return spectra.infrared(dipoles, step, run["temperature"].mean(), volume, resolution=max(RESOLUTION, finest))


def absorption(run, volume):
    """Wavenumbers cm^-1, alpha n cm^-1 and its standard error from blocks of the trajectory."""
    alpha_n, error = spectra.block_error(lambda part: spectrum(part, run, volume)[1], run["dipoles"], N_BLOCKS)
    return spectrum(run["dipoles"], run, volume)[0], alpha_n, error


def picture(pressures, found, heavy_ice):
    figure = Figure(figsize=(10.5, 3.2 + 0.5 * len(pressures)), layout="constrained")
    left, right = figure.subplots(1, 2)
    wavenumbers, labels = found[0][0], [f"{pressure} GPa" for pressure in pressures]
    curves, errors = ([each[k] for each in found] for k in (1, 2))
    plot_stack(left, wavenumbers, curves, labels, errors=errors)
    left.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=r"$\alpha n$", title=f"H$_2$O, {TEMPERATURE} K")
    # what the paper says in words: where the stretching band starts from, and between which curves the change is
    left.axvline(PAPER[0], color="0.4", lw=1, ls=(0, (4, 3)), label=f"paper: stretching band, {PAPER[0]} cm$^{{-1}}$")
    between = np.searchsorted(pressures, PAPER[1])
    if 0 < between < len(found) and pressures == sorted(pressures):
        level = (between - 0.06) * np.mean([alpha_n.max() for alpha_n in curves])
        left.axhline(level, color=COLORS[2], lw=1, ls=(0, (1, 2)), label=f"paper: abrupt change, {PAPER[1]} GPa")
    left.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    for name, (_, alpha_n, error), color in ("H$_2$O", found[0], COLORS[0]), ("D$_2$O", heavy_ice, COLORS[2]):
        plot_spectrum(right, wavenumbers, alpha_n / 1000, error / 1000, label=name, color=color)
    right.set_title(f"{labels[0]}, {TEMPERATURE} K")
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    calc, found = DeepWannierCalculator(arguments.model, on_extrapolation="warn"), []
    for name, atoms, run in runs(calc, arguments):
        found.append(absorption(run, atoms.get_volume()))
        high, low = (strongest(*found[-1][:2], band) for band in ((1900, np.inf), (100, 1900)))
        print(f"{name}: strongest absorption at {high:.0f} cm^-1, below 1900 at {low:.0f} cm^-1", flush=True)
    heavy_ice = heavy_spectrum(calc, folder_of(arguments), arguments.pressures[0], arguments.time)
    ratio = strongest(*found[0][:2], (1900, np.inf)) / strongest(*heavy_ice[:2], (1400, np.inf))
    print(f"H2O to D2O: {ratio:.3f} in wavenumber")
    picture(arguments.pressures, found, heavy_ice).savefig(arguments.output / "07_ice_infrared.png", dpi=120)


if __name__ == "__main__":
    main()
