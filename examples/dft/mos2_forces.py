"""Energies and forces of the structures of mos2.py for a force field, converged.

    ESPRESSO_PSEUDO=FOLDER                                      # with mo.upf and s.upf
    python mos2.py sample mos2.extxyz
    python mos2_forces.py label mos2.extxyz work_forces --part 0/2  # one file per structure, skips what is done
    python mos2_forces.py collect work_forces mos2_converged.h5     # adds to mos2_converged_forces.h5

Labels of the kinds that are far from rest, "shaken" to "beam", go into a folder of their own, and into
mos2_far_forces.h5 (collect FOLDER mos2_far.h5).

Two things that mos2.py leaves out.  Density in 320 Ry: in 160, four times that of the functions, forces on Mo in a cell
of six atoms change by up to 16 meV/Å where all atoms move by 0.06 Å against the grid on which the density is (in 320 by
0.8).  And points as dense as 6x6 of a primitive cell, half a step off Γ: with 4x4, an atom and its image twelve Å away
are not told apart.  Forces of mos2.py are off by 5 to 40 meV/Å on average for both reasons.  What is left: 9x9 points
change those of four cells of six atoms, one with overlapping bands, by 0.3 to 1.2 meV/Å on average, 480 Ry those of one
by 0.3, and 1e-8 Ry in the place of 1e-7 as the end of self-consistency those of one of twelve by 0.5.

Cells end 5 Å above and below the layers.  Dispersion between periodic images along the normal is taken out: energy and
forces are those of layers that are alone.
"""

from dataclasses import replace

import espresso
import layered
import mos2
import numpy as np
from ase import units
from ase.neighborlist import neighbor_list

from ase_mlelec.io.espresso import read_pw
from ase_mlelec.structures.layers import layers

POINTS = 6  # along a primitive vector; as dense at least in larger cells
DENSITY = 320.0  # Ry
VACUUM = 10.0  # Å
REACH = 60.0  # Å, of dispersion between images
SCALE = 0.75  # of dispersion beside PBE, Grimme 2006
C6 = {"Mo": 24.67, "S": 5.57}  # J nm^6/mol, the same
KEPT = ("xc", "pseudopotentials", "ecutwfc_Ry", "dipole_correction")
ATTRIBUTES = {
    "settings": {name: mos2.ATTRIBUTES["settings"][name] for name in KEPT}
    | {"program": "Quantum ESPRESSO 6.7", "ecutrho_Ry": DENSITY, "kpoints": "6x6x1 of the primitive cell, off Γ"}
}


def calculate(atoms, directory):
    """Label of one structure: energy and forces alone."""
    mos2.check_pseudopotentials()
    atoms = lower_cell(atoms)
    cells = len(atoms) / 3 / (layers(atoms, areas=mos2.AREAS).max() + 1)
    mesh = mos2.mesh(atoms, POINTS, cells)
    jump = float(mos2.JUMP * mos2.HEIGHT / atoms.cell[2, 2])
    system = mos2.SYSTEM | dict(ecutrho=DENSITY, eopreg=jump, emaxpos=1 - jump / 2)
    espresso.pw(
        atoms,
        directory,
        "scf",
        mos2.PSEUDO,
        mesh,
        (1, 1, 0),
        control=mos2.CONTROL,
        system=system,
        electrons=dict(conv_thr=1e-7, mixing_beta=0.6, mixing_mode="local-TF"),
    )
    scf = read_pw(directory / espresso.SAVE)
    energy, forces = image_dispersion(atoms)
    return layered.Label(replace(scf, energy=scf.energy - energy, forces=scf.forces - forces, kpoints=None))


def lower_cell(atoms):
    """The same layers in the middle of a cell that ends half of VACUUM above and below them."""
    atoms = atoms.copy()
    height = np.ptp(atoms.positions[:, 2]) + VACUUM
    atoms.positions[:, 2] += (height - atoms.positions[:, 2].max() - atoms.positions[:, 2].min()) / 2
    atoms.cell[2, 2] = height
    return atoms


def image_dispersion(atoms):
    """(energy, eV, forces [N, 3], eV/Å) of Grimme's D2 between images along the third vector, where nothing is damped.

    Source: Grimme, J. Comput. Chem. 27, 1787 (2006).
    """
    root = np.sqrt([C6[symbol] * 1e6 * units.kJ / 1000 / units.mol for symbol in atoms.symbols])
    first, second, vectors, shifts = neighbor_list("ijDS", atoms, REACH)
    away = shifts[:, 2] != 0
    first, second, vectors = first[away], second[away], vectors[away]
    square = (vectors**2).sum(axis=1)
    energies = -SCALE * root[first] * root[second] / square**3
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, -6 * (energies / square)[:, None] * vectors)
    return energies.sum() / 2, forces


if __name__ == "__main__":
    layered.main(__doc__, mos2.PLAN, mos2.build, calculate, mos2.functions, ATTRIBUTES)
