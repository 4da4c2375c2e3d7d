"""Where do the protons of ice go under pressure, and what does its infrared spectrum say; and that of heavy ice?

    python 07_ice_infrared.py                           # 16 molecules, 5 ps at each pressure, about 15 minutes
    python 07_ice_infrared.py --repeat 4 --time 500     # 128 molecules and 0.5 ns, as in the paper

Molecular dynamics at 300 K with classical nuclei.  The two peaks of g_OH(r) become one where the protons are in the
middle of the bonds (ice X).  In the paper the stretching band at about 3000 cm^-1 softens with pressure, the spectrum
changes suddenly near 70 GPa, and two strong bands follow.  Writes to output/: 07_ice_infrared.png and the recorded
dipoles, from which `mlelec ir` draws spectra as well.

Source: after Zhang et al. 2020, Figs. 1-3.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.geometry.rdf import get_rdf
from ase.md.bussi import Bussi
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator, ElectronicRecorder
from ase_mlelec.analysis.plots import COLOURS, plot_spectrum, plot_stack
from ase_mlelec.physics import spectra

sys.path.insert(0, str(Path(__file__).parent / "dft"))
import ice  # noqa: E402

STEP, RESOLUTION = 0.5, 40.0        # fs, cm^-1


def run(calc, pressure, path, arguments, heavy=False):
    """Molecular dynamics at ``pressure``, GPa: r Å, g_OH, wavenumbers cm^-1, alpha n cm^-1 and its standard error."""
    rng, n_steps = np.random.default_rng(pressure), int(1000 * arguments.time / STEP)
    atoms = ice.ice_atoms(np.interp(pressure, ice.PRESSURES, ice.LATTICE_CONSTANTS), rng, arguments.repeat)
    atoms.set_masses([2.014 if heavy and atom.symbol == "H" else atom.mass for atom in atoms])
    atoms.calc = calc
    MaxwellBoltzmannDistribution(atoms, temperature_K=450, rng=rng)     # part of it goes into the potential
    NPTBerendsen(atoms, STEP * units.fs, temperature_K=300, pressure_au=pressure * units.GPa, taut=50 * units.fs,
                 taup=200 * units.fs, compressibility_au=0.005 / units.GPa).run(min(n_steps // 2, 4000))
    dyn, pairs = Bussi(atoms, STEP * units.fs, 300, taut=2000 * units.fs, rng=rng), []
    recorder = ElectronicRecorder(atoms, path, ("dipole", "cell", "temperature"), dyn=dyn, resume=False)
    dyn.attach(recorder, interval=2)
    dyn.attach(lambda: pairs.append(get_rdf(atoms, 2.2, 110, elements=(8, 1))), interval=20)
    dyn.run(n_steps)
    radii, dipoles = pairs[0][1], recorder.results["dipole"]

    def absorption(part):
        return spectra.infrared(part, 2 * STEP, 300, atoms.get_volume(), resolution=RESOLUTION)

    alpha_n, error = spectra.block_error(lambda part: absorption(part)[1], dipoles)
    return radii, np.mean([g for g, _ in pairs], axis=0), absorption(dipoles)[0], alpha_n, error


def stretch(wavenumbers, alpha_n, above):
    return wavenumbers[np.argmax(np.where(wavenumbers > above, alpha_n, 0))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ice")
    parser.add_argument("--pressures", type=int, nargs="+", default=[20, 40, 60, 80, 110], help="GPa")
    parser.add_argument("--repeat", type=int, default=2, help="2: 16 molecules (default), 4: 128 molecules")
    parser.add_argument("--time", type=float, default=5.0, help="of each run, ps (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc, runs = DeepWannierCalculator(arguments.model), []
    for pressure in arguments.pressures:
        runs.append(run(calc, pressure, arguments.output / f"07_ice_{pressure}GPa.h5", arguments))
        radii, g, wavenumbers, alpha_n, _ = runs[-1]
        print(f"{pressure} GPa: O-H {radii[g.argmax()]:.2f} Å, strongest absorption above 1900 cm^-1 at "
              f"{stretch(wavenumbers, alpha_n, 1900):.0f} cm^-1", flush=True)
    heavy = run(calc, arguments.pressures[0], arguments.output / "07_heavy_ice.h5", arguments, heavy=True)
    print(f"H2O to D2O: {stretch(*runs[0][2:4], 1900) / stretch(*heavy[2:4], 1400):.3f} in wavenumber")

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    labels = [f"{pressure} GPa" for pressure in arguments.pressures]
    plot_stack(left, radii, [g for _, g, *_ in runs], labels).set(xlabel="r (Å)", ylabel="$g_{OH}(r)$", xlim=(0.7, 2.2))
    plot_stack(middle, wavenumbers, [alpha_n for *_, alpha_n, _ in runs], labels)
    middle.set(xlabel="wavenumber (cm$^{-1}$)", ylabel=r"$\alpha n$")
    for name, (*_, alpha_n, error), colour in ("H$_2$O", runs[0], COLOURS[0]), ("D$_2$O", heavy, COLOURS[2]):
        plot_spectrum(right, wavenumbers, alpha_n / 1000, error / 1000, label=f"{name}, {labels[0]}", color=colour)
    right.legend(frameon=False)
    figure.savefig(arguments.output / "07_ice_infrared.png", dpi=120)


if __name__ == "__main__":
    main()
