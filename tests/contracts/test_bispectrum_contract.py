"""Bispectrum of atoms under the descriptor contract: every kind of cell, species with unequal weights and cutoffs."""

from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.testing import DescriptorContract

OXIDE = dict(weights=[1.0, -0.6], cutoffs=[3.6, 3.1])


def float64(*arguments, **options):
    return Bispectrum(*arguments, **options).double()


class TestTen(Orthorhombic, DescriptorContract):
    def make_descriptor(self):
        return float64(["Si", "O"], cutoff=3.9)


class TestUnequalSpecies(Sheared, DescriptorContract):
    def make_descriptor(self):
        return float64(["Si", "O"], 6, **OXIDE)


class TestBZero(LeftHanded, DescriptorContract):
    def make_descriptor(self):
        return float64(["O", "Si"], 5, cutoff=3.4, bzero=True)


class TestRadialSums(Sheared, DescriptorContract):
    def make_descriptor(self):
        return float64(["Si", "O"], 3, **OXIDE, n_radial=5)


class TestRmin(Slab, DescriptorContract):
    def make_descriptor(self):
        return float64(["Si", "O"], 4, rmin0=0.5, rfac0=0.9, cutoff=3.2)


class TestMolecule(Molecule, DescriptorContract):
    def make_descriptor(self):
        return float64(["Si", "O"], 4, weights={"O": 0.5}, cutoffs={"Si": 4.0})
