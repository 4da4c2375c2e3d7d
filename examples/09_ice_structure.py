"""Where are the protons of ice under pressure: at their molecule, or in the middle of the bond?

    python 09_ice_structure.py                          # 16 molecules, 5 ps at each pressure, about 10 minutes
    python 09_ice_structure.py --repeat 4 --time 20     # 128 molecules

Constant-pressure molecular dynamics at 300 K with classical nuclei.  The pair correlation function g_OH has two peaks
where every proton belongs to one oxygen (ice VII), which run into each other where protons hop (VII'), and one where
they are in the middle of the bonds (ice X).  Writes output/09_ice_structure.png.

Source: after Zhang et al. 2020, Fig. 1.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ase.geometry.rdf import get_rdf
from matplotlib.figure import Figure

from ase_mlelec import DeepPotCalculator
from ase_mlelec.analysis.plots import COLORS, plot_stack

sys.path.insert(0, str(Path(__file__).parent / "dft"))
import ice

FARTHEST, BINS = 2.2, 110  # Å


def run(calc, pressure, arguments):
    """Molecular dynamics at ``pressure``, GPa: g_OH [BINS], and mean lengths of the two parts of a bond O-H-O, Å."""
    rng, n_steps = np.random.default_rng(pressure), int(1000 * arguments.time / ice.STEP)
    atoms = ice.compressed(calc, pressure, rng, arguments.repeat, 300, min(n_steps // 4, 4000))
    dyn, pairs, bonds = ice.constant_pressure(atoms, pressure, 300), [], []

    def observe():
        pairs.append(get_rdf(atoms, FARTHEST, BINS, elements=(8, 1))[0])
        distances = atoms.get_all_distances(mic=True)[np.ix_(atoms.symbols == "H", atoms.symbols == "O")]
        bonds.append(np.sort(distances, axis=1)[:, :2].mean(axis=0))

    dyn.attach(observe, interval=20)
    dyn.run(n_steps)
    return np.mean(pairs, axis=0), np.mean(bonds, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ice")
    parser.add_argument("--pressures", type=int, nargs="+", default=[20, 40, 60, 80, 110], help="GPa")
    parser.add_argument("--repeat", type=int, default=2, help="2: 16 molecules (default), 4: 128 molecules")
    parser.add_argument("--time", type=float, default=5.0, help="of each run, ps (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc, runs = DeepPotCalculator(arguments.model), []
    for pressure in arguments.pressures:
        runs.append(run(calc, pressure, arguments))
        near, far = runs[-1][1]
        print(f"{pressure} GPa: O-H {near:.3f} and {far:.3f} Å", flush=True)
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    radii = FARTHEST / BINS * (np.arange(BINS) + 0.5)
    plot_stack(left, radii, [g for g, _ in runs], [f"{pressure} GPa" for pressure in arguments.pressures])
    left.set(xlabel="r (Å)", ylabel="$g_{OH}(r)$", xlim=(0.7, FARTHEST))
    for lengths, label, color in zip(np.array([b for _, b in runs]).T, ("nearer oxygen", "other oxygen"), COLORS):
        right.plot(arguments.pressures, lengths, "o-", ms=4, color=color, label=label)
    right.set(xlabel="pressure (GPa)", ylabel="mean distance of a proton (Å)")
    right.legend(frameon=False)
    figure.savefig(arguments.output / "09_ice_structure.png", dpi=120)


if __name__ == "__main__":
    main()
