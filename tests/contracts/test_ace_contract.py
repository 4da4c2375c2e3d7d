"""ACE invariants under the descriptor contract: every kind of cell."""

from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

from ase_mlelec.descriptors import ACE
from ase_mlelec.descriptors.ace import Order, standard_orders
from ase_mlelec.testing import ForceDescriptorContract


class SiliconOxide(ForceDescriptorContract):
    def make_descriptor(self):
        orders = standard_orders(cutoff=3.9, n_pair=5, n_radial=3, l_max=4, max_order=2)
        return ACE(["Si", "O"], inner=1.3, orders=orders).double()


class TestNear(Sheared, ForceDescriptorContract):
    def make_descriptor(self):
        orders = (Order(3.9, 4), Order(3.9, 2, 3), Order(3.0, 2, 3, 4.0), Order(3.0, 2, 3, 2.2))
        return ACE(["Si", "O"], inner=1.3, orders=orders).double()


class TestCutoffOfEachOrder(Sheared, ForceDescriptorContract):
    """The longest is not that of the first order; orders 1 and 4 are limited as well, order 3 is left out."""

    def make_descriptor(self):
        orders = (Order(3.1, 4, 0, 6.0), Order(3.9, 3, 2, 4.0), Order(3.0, 2, 2, 0), Order(2.9, 3, 2, 2.2))
        return ACE(["Si", "O"], inner=1.3, orders=orders).double()


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
