"""How large and how stiff is silicon, and does its energy stay constant while the atoms move?

    python 01_relax_and_md.py               # less than a minute; writes output/01_relax_and_md.png
    python 01_relax_and_md.py --model my.safetensors --steps 2000

Relaxes the crystal, compresses and stretches it, displaces its atoms at random and lets them go: kinetic and potential
energy swing against each other, and their sum is constant as far as the forces are the gradient of the energy.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.figure import Figure

from ase_mlelec import DeepPotCalculator, evaluate
from ase_mlelec.analysis.plots import COLORS, plot_series


def relaxed_crystal(calc):
    atoms = bulk("Si", "diamond", a=5.5, cubic=True)
    atoms.calc = calc
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.002, steps=100)
    return atoms


def equation_of_state(crystal):
    images = [crystal.copy() for _ in range(13)]
    for image, scale in zip(images, np.linspace(0.97, 1.03, 13)):
        image.set_cell(crystal.cell * scale, scale_atoms=True)
    run = evaluate(crystal.calc, images, ["volume", "energy"])  # all of them together
    return EquationOfState(run["volume"] / len(crystal), run["energy"] / len(crystal), eos="birchmurnaghan")


def molecular_dynamics(atoms, steps):
    """Time in ps, and the changes of kinetic, potential and total energy in meV per atom."""
    atoms.rattle(0.12, seed=1)
    dyn, rows = VelocityVerlet(atoms, 1 * units.fs), []
    dyn.attach(
        lambda: rows.append(
            (
                dyn.get_time() / (1000 * units.fs),
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
    parser.add_argument("--model", default="si")
    parser.add_argument("--steps", type=int, default=500, help="time steps of 1 fs (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    crystal = relaxed_crystal(DeepPotCalculator(arguments.model))
    eos = equation_of_state(crystal)
    supercell = crystal * (2, 2, 2)
    supercell.calc = crystal.calc
    time, energies = molecular_dynamics(supercell, arguments.steps)
    print(
        f"lattice constant {crystal.cell.lengths().mean():.3f} Å, bulk modulus {eos.fit()[2] / units.GPa:.0f} GPa, "
        f"total energy within {np.ptp(energies[2]):.3f} meV/atom"
    )

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    volumes = np.linspace(eos.v.min(), eos.v.max(), 100)
    left.plot(volumes, 1000 * (eos.func(volumes, *eos.eos_parameters) - eos.e0), color="0.5", label="Birch-Murnaghan")
    left.plot(eos.v, 1000 * (eos.e - eos.e0), "o", ms=4, color=COLORS[0], label="model")
    left.set(xlabel="volume per atom (Å$^3$)", ylabel="energy (meV/atom)")
    for values, label, color in zip(energies, ("kinetic", "potential", "total"), COLORS):
        plot_series(right, time, values, "change of energy (meV/atom)", label=label, color=color)
    right.set(xlabel="time (ps)", ylim=(None, 1.3 * energies.max()))
    left.legend(frameon=False), right.legend(frameon=False, ncols=3)
    figure.savefig(arguments.output / "01_relax_and_md.png", dpi=150)


if __name__ == "__main__":
    main()
