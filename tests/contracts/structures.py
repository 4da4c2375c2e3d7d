"""Cells of every kind, as mix-ins with ``make_atoms``: a contract class inherits one of them."""

from ase_mlelec.testing import random_atoms


class Cell:
    atoms = None

    def make_atoms(self):
        return self.atoms.copy()


class Orthorhombic(Cell):
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


class Sheared(Cell):
    """Cutoff beyond the cell: every atom sees images of itself."""

    atoms = random_atoms("Si2O", cell=[[3.2, 0, 0], [2.1, 3.4, 0], [-1.3, 1.7, 4.1]], seed=1)


class LeftHanded(Cell):
    atoms = random_atoms("Si3O3", cell=[[0, 5.5, 0.7], [5.1, 0.3, 0], [0.4, 0, 6.1]], seed=2)


class Slab(Cell):
    atoms = random_atoms("Si3O2", cell=[[4.4, 0.5, 0], [0, 4.9, 0], [0, 0, 7.0]], pbc=[True, True, False], seed=3)


class Molecule(Cell):
    atoms = random_atoms("Si2O3", seed=4)
