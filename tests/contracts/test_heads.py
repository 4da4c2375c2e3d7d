"""The heads under the head contract."""
import torch
from small_models import ENERGIES, randomise_nets

from ase_mlelec.descriptors import Environment
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.testing import HeadContract


class TwoSpecies:
    def make_environment(self):
        generator = torch.Generator().manual_seed(3)
        return Environment(torch.randn(9, 6, generator=generator, dtype=torch.float64),
                           torch.tensor([0, 1, 1, 0, 1, 0, 0, 0, 1]))

    def finished(self, head):
        randomise_nets(head.nets, 1.0, 0.3)
        return head


class TestScalar(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(ScalarHead(2, 6, (8, 8), timestep=True).double())


class TestSpectrum(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(SpectrumHead(2, 6, ENERGIES, (8, 16)).double())


class TestSpeciesThatDoNotOccur(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(ScalarHead(5, 6, (8,)).double())
