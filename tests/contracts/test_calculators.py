"""The calculators under the calculator contract, and their models under the model contract, in cells of every kind."""
import pytest
from small_models import random_model
from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator
from ase_mlelec.calculators import base
from ase_mlelec.testing import CalculatorContract, ModelContract


class DeepPot(ModelContract, CalculatorContract):
    def make_model(self, seed=0):
        return random_model(seed)

    def make_calculator(self, model, **options):
        return DeepPotCalculator(model, **options)


class DeepDOS(ModelContract, CalculatorContract):
    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dos"), one_side=False)

    def make_calculator(self, model, **options):
        return DeepDOSCalculator(model, **options)

    def per_atom(self, calculator, atoms):
        return {"ados": calculator.get_ados(atoms)}


class TestDeepPotOrthorhombic(Orthorhombic, DeepPot):
    pass


class TestDeepPotSheared(Sheared, DeepPot):
    pass


class TestDeepPotSlab(Slab, DeepPot):
    pass


class TestDeepPotMolecule(Molecule, DeepPot):
    pass


class TestDeepPotChebyshev(LeftHanded, DeepPot):
    def make_model(self, seed=0):
        return random_model(seed, n_basis=12, l_max=3)


class TestDeepDOSLeftHanded(LeftHanded, DeepDOS):
    pass


class TestDeepDOSSlab(Slab, DeepDOS):
    pass


class TestDeepDOSAlone(Sheared, DeepDOS):
    """No energy of its own: nothing but the electronic results."""

    def make_model(self, seed=0):
        return random_model(seed, ("dos",))
