"""The shipped models under the model contract."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from small_bilayers import graphene_bilayer, mx2_bilayer

from ase_mlelec.bundle import load_model
from ase_mlelec.testing import ModelContract


class Shipped(ModelContract):
    """In float64, so that differences are those of rounding; a model file has no seeds."""

    shipped = None
    single = 2e-4  # elements and spectra are small differences of large parts

    def make_model(self, seed=0):
        return load_model(self.shipped).to(torch.float64)


class TestSilicon(Shipped):
    shipped = "si"

    def make_atoms(self):
        atoms = bulk("Si") * (2, 1, 1)
        atoms.rattle(0.05, seed=1)
        return atoms


class TestHotSilicon(TestSilicon):
    shipped = "si_hot"


class TestMagnesiumOxide(Shipped):
    shipped = "mgo"

    def make_atoms(self):
        atoms = bulk("MgO", "rocksalt", a=3.4)
        atoms.rattle(0.03, seed=1)
        return atoms


class TestAluminium(Shipped):
    shipped = "al"

    def make_atoms(self):
        atoms = bulk("Al") * (2, 1, 1)
        atoms.rattle(0.05, seed=1)
        return atoms


class TestIce(Shipped):
    """Two molecules in a cubic cell, as in ice VII."""

    shipped = "ice"

    def make_atoms(self):
        place = np.array([1.0, 1.0, 1.0]) / 3**0.5
        molecule = Atoms("OH2", [[0, 0, 0], 0.97 * place, 0.97 * place * [1, -1, -1]])
        other = molecule.copy()
        other.rotate(90, "z")
        other.positions += 1.65
        atoms = molecule + other
        atoms.set_cell([3.3, 3.3, 3.3])
        atoms.pbc = True
        atoms.rattle(0.02, seed=1)
        return atoms


class TestWater(TestIce):
    """A molecule and another one, farther apart than in ice under pressure."""

    shipped = "water"

    def make_atoms(self):
        atoms = super().make_atoms()
        atoms.set_cell([4.2, 4.2, 4.2])
        atoms.positions[3:] += 0.4
        return atoms


class TestMoS2(Shipped):
    shipped = "mos2"

    def make_atoms(self):
        return mx2_bilayer((0.3, 0.1), noise=0.02, seed=1)


class TestGraphene(Shipped):
    shipped = "graphene"

    def make_atoms(self):
        return graphene_bilayer((0.3, 0.1), noise=0.02, seed=1)
