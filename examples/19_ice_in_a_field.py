"""How much energy does ice take up from a pulse of light, and is it what the infrared spectrum says?

    python 19_ice_in_a_field.py                 # 16 molecules, a quarter of an hour on one core
    python 19_ice_in_a_field.py --field 0.3     # V/Å; a stronger one, beyond linear response

Electric fields that oscillate with different wavenumbers act on ice at 20 GPa and 300 K for a tenth of a picosecond:
molecular dynamics in a field that changes with time.  The energy that stays is compared with linear response: absorption
coefficient times refractive index, from the fluctuations of the dipole without a field (that of 07_ice_infrared.py), times
what the pulse carries.  From every start there are two runs whose fields have opposite signs, as work that is linear in the
field cancels in their mean.  Writes output/19_ice_in_a_field.png.

Source: McQuarrie, Statistical Mechanics, 1976, Ch. 21.
"""

import argparse
import importlib

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from matplotlib.figure import Figure
from tqdm import tqdm

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_spectrum
from ase_mlelec.units import CM, COULOMB, SPEED_OF_LIGHT

infrared = importlib.import_module("07_ice_infrared")

PRESSURE, PICOSECONDS = 20, 6  # GPa; of the run without a field
WAVENUMBERS = (500, 900, 1400, 2000, 2600, 3000, 3400)  # cm^-1
DURATION, STEPS = 40.0, 480  # fs, standard deviation of the field's envelope; of the dynamics
STARTS = 3  # ends of the last picoseconds, with fields along x, y and z


class Pulse:
    """Field [3], V/Å, in the middle of the time of a run: a cosine in a Gaussian envelope."""

    def __init__(self, wavenumber, strength, axis):
        self.frequency = 2 * np.pi * SPEED_OF_LIGHT / CM * wavenumber  # rad/fs
        self.field = strength * np.eye(3)[axis]

    def __call__(self, time):
        time = time - STEPS * infrared.STEP / 2
        return self.field * np.exp(-((time / DURATION) ** 2) / 2) * np.cos(self.frequency * time)


def driven(atoms, pulse):
    """Energies without the field, eV, that atoms have taken up after every tenth step of dynamics in a pulse."""
    calc, found = atoms.calc, []
    calc.electric_field = None
    start = atoms.get_total_energy()
    dyn = VelocityVerlet(atoms, infrared.STEP * units.fs)
    for step in range(STEPS):
        calc.electric_field = pulse((step + 0.5) * infrared.STEP)
        dyn.run(1)
        if step % 10 == 9:
            work = calc.electric_field @ atoms.get_dipole_moment()
            found.append(atoms.get_total_energy() + work - start)
    return np.array(found)


def absorbed(starts, wavenumber, strength):
    """Energies [starts, k] along the runs, eV, each the mean of two fields of opposite sign."""
    rows = []
    for number, start in enumerate(starts):
        runs = [driven(copied(start), Pulse(wavenumber, sign * strength, number % 3)) for sign in (1, -1)]
        rows.append(np.mean(runs, axis=0))
    return np.array(rows)


def copied(atoms):
    other = atoms.copy()
    other.calc = atoms.calc
    return other


def starts_of(atoms, folder, name):
    """Atoms at the ends of the last picoseconds of a run that is kept."""
    for path in sorted(folder.glob(f"{name}_[0-9]*.npz"))[-STARTS:]:
        start = copied(atoms)
        with np.load(path) as end:
            start.positions = end["end"]
            start.set_momenta(end["momenta"])
        yield start


def expected(wavenumbers, alpha_n, center, strength, volume):
    """Energy, eV, by linear response: V ε_0 c ∫E² dt times the mean of α n, cm^-1, over the spectrum of a pulse."""
    width = CM / (2 * np.pi * SPEED_OF_LIGHT * DURATION)  # cm^-1, of the field; the energy has its square
    weights = np.exp(-(((wavenumbers - center) / width) ** 2))
    carried = strength**2 * DURATION * np.sqrt(np.pi) / 2 * SPEED_OF_LIGHT / (4 * np.pi * COULOMB)  # eV/Å^2
    return volume * carried * (weights @ alpha_n) / weights.sum() / CM


def picture(spectrum, runs, strength, volume, n_molecules):
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    scale = 1000 / n_molecules  # meV
    times = 10 * infrared.STEP * np.arange(1, STEPS // 10 + 1)
    ranked = sorted(runs, key=lambda each: runs[each][:, -1].mean())
    for center, color in zip((ranked[0], ranked[-1]), COLORS):
        left.plot(times, scale * runs[center].mean(axis=0), color=color, label=f"{center} cm$^{{-1}}$")
    envelope = np.exp(-(((times - STEPS * infrared.STEP / 2) / DURATION) ** 2) / 2)
    left.fill_between(times, left.get_ylim()[1] * envelope, color="0.9", zorder=0, label="envelope of the field")
    left.set(xlabel="time (fs)", ylabel="energy taken up (meV per molecule)", xlim=(0, times[-1]))
    left.legend(frameon=False)
    centers = np.linspace(200, 3800, 200)
    curve, error = ([expected(spectrum[0], part, c, strength, volume) for c in centers] for part in spectrum[1:])
    plot_spectrum(right, centers, scale * np.array(curve), scale * np.array(error), label="linear response")
    values = scale * np.array([runs[center][:, -1] for center in runs])
    bars = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    right.errorbar(list(runs), values.mean(axis=1), bars, fmt="o", color=COLORS[1], capsize=2, label="in the field")
    right.set(xlabel="wavenumber of the field (cm$^{-1}$)", ylabel="energy taken up (meV per molecule)")
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    infrared.add_options(parser)
    parser.set_defaults(pressures=[PRESSURE], time=PICOSECONDS)
    parser.add_argument("--field", type=float, default=0.15, help="V/Å, largest of a pulse (%(default)s)")
    arguments = parser.parse_args()
    calc = DeepWannierCalculator(arguments.model, on_extrapolation="warn")
    name, atoms, run = next(infrared.runs(calc, arguments))
    spectrum, volume = infrared.absorption(run, atoms.get_volume()), atoms.get_volume()
    atoms.calc = calc
    starts, runs, n_molecules = list(starts_of(atoms, infrared.folder_of(arguments), name)), {}, len(atoms) // 3
    for center in tqdm(WAVENUMBERS, unit=" pulses", disable=None):
        runs[center] = absorbed(starts, center, arguments.field)
        ends = 1000 * runs[center][:, -1] / n_molecules
        wanted, error = (
            1000 * expected(spectrum[0], part, center, arguments.field, volume) / n_molecules for part in spectrum[1:]
        )
        print(
            f"{center} cm^-1: {ends.mean():.1f} ± {ends.std(ddof=1) / np.sqrt(len(ends)):.1f} meV per molecule, "
            f"{wanted:.1f} ± {error:.1f} by linear response",
            flush=True,
        )
    figure = picture(spectrum, runs, arguments.field, volume, n_molecules)
    figure.savefig(arguments.output / "19_ice_in_a_field.png", dpi=120)


if __name__ == "__main__":
    main()
