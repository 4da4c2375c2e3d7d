"""Can atoms move on the total free energy of ML-DFT: does a strained crystal relax, and is energy conserved?

    python 06_aluminium_md.py           # two to three minutes on two cores; writes output/06_aluminium_md.png

Relaxes atoms and cell of a strained crystal of four atoms, then lets the atoms go from random momenta.  Forces and
stress are derivatives of the energy on the grid as it is, so that energy is conserved on a coarse grid too; the one
here, wider than that of the training data, moves energies by less than 0.1 meV/atom.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.figure import Figure

from ase_mlelec import MLDFTCalculator, load_model
from ase_mlelec.analysis.plots import COLORS, plot_series


def relax(atoms):
    """Energy above the last one in meV per atom, and cell lengths in Å, at each step."""
    rows, optimizer = [], BFGS(FrechetCellFilter(atoms), logfile=None)
    optimizer.attach(lambda: rows.append([atoms.get_potential_energy(), *atoms.cell.lengths()]))
    optimizer.run(fmax=0.01, steps=50)
    rows = np.array(rows)
    return 1000 * (rows[:, 0] - rows[-1, 0]) / len(atoms), rows[:, 1:]


def molecular_dynamics(atoms, steps):
    """Time in fs, and the changes of kinetic, potential and total energy in meV per atom."""
    width = np.sqrt(atoms.get_masses() * units.kB * 600)[:, None]
    atoms.set_momenta(width * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    Stationary(atoms)
    dyn, rows = VelocityVerlet(atoms, 3 * units.fs), []
    dyn.attach(
        lambda: rows.append(
            (
                dyn.get_time() / units.fs,
                atoms.get_kinetic_energy(),
                atoms.get_potential_energy(),
                atoms.get_total_energy(),
            )
        )
    )
    dyn.run(steps)
    rows = np.array(rows) - rows[0]
    return rows[:, 0], 1000 / len(atoms) * rows[:, 1:].T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="al")
    parser.add_argument("--steps", type=int, default=100, help="time steps of 3 fs (%(default)s)")
    parser.add_argument("--spacing", type=float, default=0.27, help="of the grid points, Å (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    model = load_model(arguments.model)
    model.metadata["grid_spacing_A"] = arguments.spacing
    atoms = bulk("Al", a=4.05, cubic=True)
    atoms.set_cell(atoms.cell.array * [0.99, 1.0, 1.01], scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = MLDFTCalculator(model)
    above, lengths = relax(atoms)
    time, energies = molecular_dynamics(atoms, arguments.steps)
    print(
        f"relaxed in {len(above) - 1} steps: cell {lengths[-1].round(3)} Å; over {time[-1]:.0f} fs total energy "
        f"within {np.ptp(energies[2]):.3f} meV/atom, potential within {np.ptp(energies[1]):.1f}"
    )

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    plot_series(left, range(len(above)), np.maximum(above, 1e-3), "energy above the last (meV/atom)", color=COLORS[0])
    left.set(yscale="log", xlabel="step of the relaxation")
    for values, label, color in zip(lengths.T, "abc", COLORS):
        plot_series(middle, range(len(above)), values, "cell (Å)", label=label, color=color)
    middle.set(xlabel="step of the relaxation")
    for values, label, color in zip(energies, ("kinetic", "potential", "total"), COLORS):
        plot_series(right, time, values, "change of energy (meV/atom)", label=label, color=color)
    right.set(xlabel="time (fs)", ylim=(None, 1.3 * energies.max()))
    middle.legend(frameon=False), right.legend(frameon=False, ncols=3, fontsize="small")
    figure.savefig(arguments.output / "06_aluminium_md.png", dpi=120)


if __name__ == "__main__":
    main()
