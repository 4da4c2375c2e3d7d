"""What does the infrared spectrum of ice say about its protons under pressure; and that of heavy ice?

    python 07_ice_infrared.py                           # 16 molecules, 5 ps at each pressure, about 15 minutes
    python 07_ice_infrared.py --repeat 4 --time 500     # 128 molecules and 0.5 ns, as in the paper

Molecular dynamics at 300 K with classical nuclei.  In the paper the stretching band at about 3000 cm^-1 softens with
pressure, the spectrum changes suddenly near 70 GPa, and two strong bands follow, which harden.  Writes to output/:
07_ice_infrared.png and the recorded dipoles, from which `mlelec ir` draws spectra as well.

Source: after Zhang et al. 2020, Figs. 2 and 3.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator, ElectronicRecorder
from ase_mlelec.analysis.plots import COLORS, plot_spectrum, plot_stack
from ase_mlelec.physics import spectra

sys.path.insert(0, str(Path(__file__).parent / "dft"))
import ice

RESOLUTION, SHORTEST = 40.0, 4.2  # cm^-1; ps, of which a fifth has that resolution
DEUTERIUM = 2.014  # amu
PAPER = 3000, 70  # cm^-1, stretching band at the lowest pressures; GPa, where the spectrum changes


def run(calc, pressure, path, arguments, hydrogen_mass=1.008):
    """Molecular dynamics at ``pressure``, GPa: wavenumbers cm^-1, alpha n cm^-1 and its standard error."""
    rng, n_steps = np.random.default_rng(pressure), int(1000 * arguments.time / ice.STEP)
    atoms = ice.compressed(calc, pressure, rng, arguments.repeat, 300, min(n_steps // 4, 4000), hydrogen_mass)
    dyn = Bussi(atoms, ice.STEP * units.fs, 300, taut=2000 * units.fs, rng=rng)
    recorder = ElectronicRecorder(atoms, path, ("dipole", "cell", "temperature"), dyn=dyn, resume=False)
    dyn.attach(recorder, interval=2)
    dyn.run(n_steps)
    dipoles = recorder.results["dipole"]

    def absorption(part):
        return spectra.infrared(part, 2 * ice.STEP, 300, atoms.get_volume(), resolution=RESOLUTION)

    alpha_n, error = spectra.block_error(lambda part: absorption(part)[1], dipoles)
    return absorption(dipoles)[0], alpha_n, error


def strongest(wavenumbers, alpha_n, low, high=np.inf):
    """Wavenumber of the largest absorption between two wavenumbers."""
    return wavenumbers[np.argmax(np.where((wavenumbers > low) & (wavenumbers < high), alpha_n, 0))]


def picture(pressures, runs, heavy):
    figure = Figure(figsize=(10.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    wavenumbers, labels = runs[0][0], [f"{pressure} GPa" for pressure in pressures]
    plot_stack(left, wavenumbers, [alpha_n for _, alpha_n, _ in runs], labels)
    left.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=r"$\alpha n$", title="H$_2$O, 300 K")
    # what the paper says in words: where the stretching band starts from, and between which curves the change is
    left.axvline(PAPER[0], color="0.4", lw=1, ls=(0, (4, 3)), label=f"paper: stretching band, {PAPER[0]} cm$^{{-1}}$")
    between = np.searchsorted(pressures, PAPER[1])
    if 0 < between < len(runs):
        level = (between - 0.06) * np.mean([alpha_n.max() for _, alpha_n, _ in runs])
        left.axhline(level, color=COLORS[2], lw=1, ls=(0, (1, 2)), label=f"paper: abrupt change, {PAPER[1]} GPa")
    left.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    for name, (_, alpha_n, error), color in ("H$_2$O", runs[0], COLORS[0]), ("D$_2$O", heavy, COLORS[2]):
        plot_spectrum(right, wavenumbers, alpha_n / 1000, error / 1000, label=name, color=color)
    right.set_title(f"{labels[0]}, 300 K")
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ice")
    parser.add_argument("--pressures", type=int, nargs="+", default=[20, 40, 60, 80, 110], help="GPa, increasing")
    parser.add_argument("--repeat", type=int, default=2, help="2: 16 molecules (default), 4: 128 molecules")
    parser.add_argument("--time", type=float, default=5.0, help="of each run, ps (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    if arguments.time < SHORTEST:
        parser.error(
            f"--time: got {arguments.time:g} ps, need {SHORTEST:g} for spectra of {RESOLUTION:g} cm^-1 with error bars"
        )
    arguments.output.mkdir(exist_ok=True)
    calc, runs = DeepWannierCalculator(arguments.model), []
    for pressure in arguments.pressures:
        runs.append(run(calc, pressure, arguments.output / f"07_ice_{pressure}GPa.h5", arguments))
        high, low = (strongest(*runs[-1][:2], *part) for part in ((1900,), (100, 1900)))
        print(f"{pressure} GPa: strongest absorption at {high:.0f} cm^-1, below 1900 at {low:.0f} cm^-1", flush=True)
    heavy = run(calc, arguments.pressures[0], arguments.output / "07_heavy_ice.h5", arguments, DEUTERIUM)
    print(f"H2O to D2O: {strongest(*runs[0][:2], 1900) / strongest(*heavy[:2], 1400):.3f} in wavenumber")
    picture(arguments.pressures, runs, heavy).savefig(arguments.output / "07_ice_infrared.png", dpi=120)


if __name__ == "__main__":
    main()
