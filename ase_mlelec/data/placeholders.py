"""Zeros that stand in files where no label was calculated."""

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from ase_mlelec.data.data_set import Frame
from ase_mlelec.physics.symmetry import may_have_forces

NEAR = 4.0  # Å, within which atoms act on each other in every calculation


def drop_zeros(frames: Iterable[Frame]) -> list[str]:
    """Drop virials and forces that are exactly zero where no calculation gives that, in place; notes on how many.

    Forces of atoms that are held by symmetry are zero, and those of atoms that are far from each other may be.
    """
    virials = forces = 0
    for frame in frames:
        if len(frame.atoms) < 2:
            continue
        if "virial" in frame.labels and not np.any(frame.labels["virial"]):
            del frame.labels["virial"]
            virials += 1
        if "forces" in frame.labels and not np.any(frame.labels["forces"]) and _act_on_each_other(frame.atoms):
            del frame.labels["forces"]
            forces += 1
    notes = []
    if virials:
        notes.append(f"the stress of {virials} structures is exactly zero, which no calculation gives, and is not read")
    if forces:
        notes.append(
            f"all forces of {forces} structures are exactly zero, which no calculation gives for atoms that symmetry does "
            "not hold, and are not read"
        )
    return notes


def _act_on_each_other(atoms: Atoms) -> bool:
    """Whether forces must be there: atoms that are near each other, and places where symmetry allows a force."""
    if not cKDTree(atoms.positions).query_pairs(NEAR):
        return False
    if not atoms.pbc.any():
        return True  # a cluster can always expand
    cell = atoms.cell.complete()
    if cell.rank < 3 or not cell.volume > 1e-3:
        return False  # a later check refuses the structure
    return may_have_forces(cell.array, cell.scaled_positions(atoms.positions), atoms.numbers)
