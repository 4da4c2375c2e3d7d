"""Atoms that symmetry maps on each other."""

import numpy as np
from ase.build import bulk

from ase_mlelec.physics.symmetry import FAILURE, equivalent_atoms, found_by


def of(atoms, **options):
    return equivalent_atoms(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers, **options)


def test_classes_of_crystals():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    found = of(atoms)
    assert {*found} == {0, 1} and (atoms.numbers[found] == atoms.numbers).all()
    atoms.positions[0] += 0.01  # along [111]: of the other atoms of magnesium, three are equivalent
    assert sorted(np.bincount(of(atoms), minlength=8)[atoms.numbers == 12].tolist()) == [0, 0, 1, 3]
    assert {*of(atoms, symprec=0.1)} == {0, 1}


def test_failures_are_none():
    atoms = bulk("Si", cubic=True)
    atoms.positions[1] = atoms.positions[0]
    assert of(atoms) is None

    def fails():
        raise FAILURE("no symmetry")

    assert found_by(fails) is None
