"""The three classes under the contracts of ase-mlelec."""

import pytest
import torch
from mlelec_magnetic.calculator import MagneticCalculator
from mlelec_magnetic.descriptor import RadialDensity
from mlelec_magnetic.head import MomentHead

from ase_mlelec.descriptors import Environment
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.testing import CalculatorContract, DescriptorContract, HeadContract, ModelContract, random_atoms

SPECIES = ("Fe", "O")


def structure():
    return random_atoms("Fe4O3", cell=[6, 7, 8])


class TestRadialDensity(DescriptorContract):
    def make_descriptor(self):
        return RadialDensity(SPECIES, cutoff=4.0).double()

    def make_atoms(self):
        return structure()


class TestMomentHead(HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return MomentHead(2, 5).double()

    def make_environment(self):
        features = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        return Environment(features, torch.tensor([0, 1, 1, 0, 1, 0]))


class TestMagneticCalculator(ModelContract, CalculatorContract):
    rules = CalculatorContract.rules | {"magmoms": ("scalar", "atom")}

    def make_model(self, seed=0):
        torch.manual_seed(seed)
        descriptor = RadialDensity(SPECIES, cutoff=4.0)
        n_features = descriptor.n_features
        heads = {"energy": ScalarHead(2, n_features, (8,)), "magnetic_moment": MomentHead(2, n_features)}
        return Model(descriptor, heads).double()

    def make_calculator(self, model, **options):
        return MagneticCalculator(model, **options)

    def make_atoms(self):
        return structure()


def test_ase_finds_the_calculator():
    plugins = pytest.importorskip("ase._4.plugins").plugins
    (plugin,) = (each for each in plugins.calculators if each.name == "MagneticCalculator")
    assert plugin.implementation is MagneticCalculator and plugin.version == "1.0"
