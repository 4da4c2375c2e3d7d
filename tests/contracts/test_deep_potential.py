"""DeepPot-SE under the descriptor contract: nets of both kinds, Chebyshev series with one to three angular channels."""

from small_models import random_descriptor
from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

from ase_mlelec.testing import ForceDescriptorContract


class TestOneSided(Orthorhombic, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor()


class TestTwoSided(Sheared, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor(one_side=False)


class TestOneSpecies(LeftHanded, ForceDescriptorContract):
    def make_atoms(self):
        atoms = super().make_atoms()
        atoms.symbols[:] = "Si"
        return atoms

    def make_descriptor(self):
        return random_descriptor(species=("Si",))


class TestTwoSidedThreeChannels(Slab, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor(one_side=False, l_max=3)


class TestChebyshevOne(Orthorhombic, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor(n_basis=12, l_max=1)


class TestChebyshevTwo(Sheared, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor(n_basis=12, l_max=2, one_side=False)


class TestChebyshevThree(Molecule, ForceDescriptorContract):
    def make_descriptor(self):
        return random_descriptor(n_basis=12, l_max=3)
