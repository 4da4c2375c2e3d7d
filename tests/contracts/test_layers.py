"""Layered crystals: environments in their frames, heads of pairs and models with Hamiltonians under their contracts."""

from small_bilayers import graphene_bilayer, mx2_bilayer, random_wannier_model

from ase_mlelec.calculators.wannier_tb import WannierTBCalculator
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.testing import CalculatorContract, DescriptorContract, HeadOfPairsContract, ModelContract


class MX2:
    kind = "mx2"

    def make_atoms(self):
        return mx2_bilayer((0.3, 0.1), noise=0.05, seed=1)


class Graphene:
    kind = "graphene"

    def make_atoms(self):
        return graphene_bilayer((0.3, 0.1), noise=0.05, seed=1)


class TestLayerMomentsOfMX2(MX2, DescriptorContract):
    def make_descriptor(self):
        return LayerMoments(["Mo", "S"], cutoff=5.5, environment=5.0, n_radial=3).double()


class TestLayerMomentsOfGraphene(Graphene, DescriptorContract):
    def make_others(self):
        return graphene_bilayer((0.1, 0.2), noise=0.05, seed=2) * (2, 1, 1)

    def make_descriptor(self):
        return LayerMoments(["C"], cutoff=5.0, environment=5.0, symmetry=6, n_radial=3).double()


class OfPairs(HeadOfPairsContract):
    def make_head(self):
        return random_wannier_model(self.kind).heads["hamiltonian"]

    def make_descriptor(self):
        return random_wannier_model(self.kind).descriptor_of("hamiltonian")


class TestHamiltonianHeadOfMX2(MX2, OfPairs):
    pass


class TestHamiltonianHeadOfGraphene(Graphene, OfPairs):
    pass


class Wannier(ModelContract):
    energy = False

    def make_model(self, seed=0):
        return random_wannier_model(self.kind, seed, self.energy)


class TestModelOfMX2(MX2, Wannier):
    energy = True


class TestModelOfGraphene(Graphene, Wannier):
    pass


class TestWannierTB(MX2, CalculatorContract):
    """Energy, forces and stress from the model's potential, levels from its Hamiltonian."""

    def make_model(self, seed=0):
        return random_wannier_model(self.kind, seed, energy=True)

    def make_calculator(self, model, **options):
        return WannierTBCalculator(model, on_extrapolation="ignore", **options)

    def pair_of_calculators(self, model):
        return self.make_calculator(model, kpts=(2, 1, 1)), self.make_calculator(model)

    def other_pbc(self, atoms):
        return [True, True, False]
