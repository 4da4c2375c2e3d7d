"""Local frames under the descriptor contract, except that features jump at the cutoff: 1/R has no switch.

The structures are such that no distances are nearly equal: there features jump, which differences would see.
"""

import torch
from structures import Cell, Sheared

from ase_mlelec.descriptors import DeepPotLocalFrame
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import ForceDescriptorContract, pair_at_cutoff, random_atoms
from ase_mlelec.testing.descriptors import assert_slope


class LocalFrames(ForceDescriptorContract):
    cutoff = 3.4

    def make_descriptor(self):
        return DeepPotLocalFrame(["Si", "O"], self.cutoff, [24, 20], [6, 3]).double()

    def make_others(self):
        return self.make_atoms()[1:]

    def test_smooth_at_the_cutoff(self, descriptor, atoms):
        """They are not: where a pair crosses the cutoff, 1/cutoff appears or vanishes at both of its atoms."""

        def features(d):
            return self.environment(pair_at_cutoff(atoms, self.cutoff, self.cutoff + d), descriptor).features

        near, inside, outside = (features(d) for d in (-2e-7, -1e-7, 1e-7))
        assert float((near - inside).abs().max()) < 1e-5
        jumps = (inside - outside).abs().amax(dim=1)
        assert int((jumps > 0.99 / self.cutoff).sum()) == 2


class TestOrthorhombic(Cell, LocalFrames):
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5], seed=25)


class TestLeftHanded(Cell, LocalFrames):
    atoms = random_atoms("Si3O3", cell=[[0, 5.5, 0.7], [5.1, 0.3, 0], [0.4, 0, 6.1]])


class TestSlab(Cell, LocalFrames):
    atoms = random_atoms("Si3O2", cell=[[4.4, 0.5, 0], [0, 4.9, 0], [0, 0, 7.0]], pbc=[True, True, False], seed=29)


class TestMolecule(Cell, LocalFrames):
    atoms = random_atoms("Si2O3", seed=2)


class TestAxesOfSpecies(TestOrthorhombic):
    def make_descriptor(self):
        axes = {"Si": ["O", "Si"], "O": ["Si", "Si"]}
        return DeepPotLocalFrame(["Si", "O"], self.cutoff, [24, 20], [2, 20], axes).double()


class TestRadialAlone(TestOrthorhombic):
    def make_descriptor(self):
        return DeepPotLocalFrame(["O", "Si"], self.cutoff, [20, 24], [0, 0]).double()


class TestSheared(Sheared, LocalFrames):
    """Atoms see images of themselves, two at each distance, whose order is that of their coordinates."""

    cutoff = 3.9

    def make_descriptor(self):
        return DeepPotLocalFrame(["Si", "O"], self.cutoff, [24, 20]).double()

    def test_gradient(self, descriptor, atoms):
        """As for others, but images at equal distances have to move together."""
        system = System.from_atoms(atoms)
        edges = Edges.build(system, self.cutoff)
        assert bool((edges.center == edges.neighbor).any())
        weights = torch.randn(descriptor.n_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def scalar(moved):
            vec = Edges.build(moved, self.cutoff).vec
            return (descriptor(system, edges.with_vec(vec)).features @ weights).sum()

        assert_slope(scalar, system)
