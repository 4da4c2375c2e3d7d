"""Power spectrum under the descriptor contract: every kind of cell."""

from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

from ase_mlelec.descriptors import PowerSpectrum
from ase_mlelec.testing import ForceDescriptorContract


class SiliconOxide(ForceDescriptorContract):
    def make_descriptor(self):
        return PowerSpectrum(["Si", "O"], cutoff=3.9, inner=1.3, n_pair=5, n_radial=3, l_max=4).double()


class TestNear(Sheared, ForceDescriptorContract):
    def make_descriptor(self):
        return PowerSpectrum(
            ["Si", "O"], cutoff=3.9, inner=1.3, n_pair=4, n_radial=2, l_max=3, near=3.0, roughest=4.0, roughest_5=2.2
        ).double()


class TestOrthorhombic(Orthorhombic, SiliconOxide):
    pass


class TestSheared(Sheared, SiliconOxide):
    pass


class TestLeftHanded(LeftHanded, SiliconOxide):
    pass


class TestSlab(Slab, SiliconOxide):
    pass


class TestMolecule(Molecule, SiliconOxide):
    pass
