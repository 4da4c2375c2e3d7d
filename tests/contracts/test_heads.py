"""The heads under the head contract."""

import pytest
import torch
from small_models import ENERGIES, randomize_nets

from ase_mlelec.descriptors import Environment
from ase_mlelec.heads import EnergyZero, LDOSHead, ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.testing import HeadContract, assert_close, random_rotation


class TwoSpecies:
    def make_environment(self):
        generator = torch.Generator().manual_seed(3)
        return Environment(
            torch.randn(9, 6, generator=generator, dtype=torch.float64),
            torch.tensor([0, 1, 1, 0, 1, 0, 0, 0, 1]),
            torch.randn(9, 5, 3, generator=generator, dtype=torch.float64),
        )

    def finished(self, head):
        randomize_nets(head.nets, 1.0, 0.3)
        return head


class TestScalar(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(ScalarHead(2, 6, (8, 8), timestep=True).double())


class TestSpectrum(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(SpectrumHead(2, 6, ENERGIES, (8, 16)).double())


class TestSquareOfTheNets(TwoSpecies, HeadContract):
    def make_head(self, square_root=True):
        torch.manual_seed(0)
        return self.finished(SpectrumHead(2, 6, ENERGIES, (8, 16), square_root=square_root).double())

    def test_is_the_square(self):
        environment, head = self.make_environment(), self.make_head()
        with torch.no_grad():
            root = self.make_head(False)(environment, None)
            assert_close(head(environment, None), root**2, self.tolerance)
            assert_close(head.slopes(environment), 2 * root, self.tolerance)


class TestSpeciesThatDoNotOccur(TwoSpecies, HeadContract):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(ScalarHead(5, 6, (8,)).double())


class TestLDOS(TwoSpecies, HeadContract):
    activation, n_linear = "silu", 0

    def make_head(self):
        torch.manual_seed(0)
        head = LDOSHead(6, ENERGIES, (8, 16), self.activation, EnergyZero(0.5, {"Al": 30.0}), self.n_linear).double()
        with torch.no_grad():
            head.shift.uniform_(-0.3, 0.3)
            head.inverse.add_(0.3 * torch.rand_like(head.inverse))
            head.scale.fill_(0.03)
        return head

    def test_linear_in_the_last_hidden_layer(self):
        """What the closed-form refit relies on, written out."""
        environment, head = self.make_environment(), self.make_head()
        with torch.no_grad():
            hidden = head.activations(environment.features)
            assert hidden.shape == (9, 16 + self.n_linear)
            wanted = 0.03 * (hidden @ head.last.weight.T + head.last.bias)
            assert_close(head(environment, None), wanted, self.tolerance)
            standard = (environment.features - head.shift) @ head.inverse.T
            assert_close(hidden[:, :16], head.hidden(standard), self.tolerance)
            assert_close(hidden[:, 16:], standard[:, 6 - self.n_linear :], self.tolerance)

    @pytest.mark.parametrize("last", [len(ENERGIES) - 1, len(ENERGIES), len(ENERGIES) + 5])
    def test_coordinates(self, last):
        """The LDOS is linear in them, and there are never more of them than energies."""
        head, features = LDOSHead(6, ENERGIES, (8, last), self.activation).double(), self.make_environment().features
        with torch.no_grad():
            head.scale.fill_(0.03)
            matrix, offset = head.basis()
            assert matrix.shape == (min(last, len(ENERGIES)), len(ENERGIES))
            assert_close(head.coordinates(features) @ matrix + offset, head.spectrum(features), self.tolerance)

    def test_one_net_for_all_species(self):
        environment, head = self.make_environment(), self.make_head()
        other = Environment(environment.features, 1 - environment.species)
        assert torch.equal(head(environment, None), head(other, None))


class TestLDOSOfThePaper(TestLDOS):
    activation = "leaky_relu"


class TestLDOSWithALinearPart(TestLDOS):
    n_linear = 2


class OfCenters(TwoSpecies, HeadContract):
    """Heads that give tensors of the centers of some species."""

    def test_turns_with_the_structure(self):
        environment, head = self.make_environment(), self.make_head()
        for rotation in (torch.as_tensor(random_rotation()), -torch.eye(3, dtype=torch.float64)):
            turned = Environment(environment.features, environment.species, environment.frame @ rotation.T)
            with torch.no_grad():
                wanted = head(environment, None) @ rotation.T
                if wanted.ndim == 3:
                    wanted = rotation @ wanted
                assert_close(head(turned, None), wanted, self.tolerance)

    def test_only_the_chosen_go_through_the_nets(self):
        environment, head = self.make_environment(), self.make_head()
        rows = []
        hooks = [net.register_forward_hook(lambda module, args, out: rows.append(len(out))) for net in head.nets.hidden]
        values = head(environment, None)
        chosen = torch.isin(environment.species, torch.tensor(head.centers))
        assert sum(rows) == int(chosen.sum()) and len(rows) == len(hooks) == len(head.centers)
        assert not values[~chosen].any() and bool(values[chosen].flatten(1).any(dim=1).all())

    def test_is_linear_in_its_basis(self):
        environment, head = self.make_environment(), self.make_head()
        outputs = torch.randn(9, len(head.nets.scale), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        basis = head.basis(environment.frame)
        wanted = (outputs.reshape(*outputs.shape, *[1] * (basis.ndim - 2)) * basis).sum(dim=1)
        assert_close(head.contract(outputs, environment.frame), wanted, 1e-14)

    def test_descriptor_without_rows(self):
        environment = self.make_environment()
        with pytest.raises(ValueError, match="descriptor without rows that turn.*; use DeepPotSE"):
            self.make_head()(Environment(environment.features, environment.species), None)


class TestVector(OfCenters):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(VectorHead(2, 6, 5, (1,), (8, 8)).double())


class TestTensor(OfCenters):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(TensorHead(2, 6, 5, (1, 0), (8, 8), timestep=True).double())


class TestFullTensor(OfCenters):
    def make_head(self):
        torch.manual_seed(0)
        return self.finished(TensorHead(3, 6, 5, (2, 0), (8,), full=True).double())

    def test_only_the_chosen_go_through_the_nets(self):
        """Species 2 is chosen and does not occur."""
        environment, head = self.make_environment(), self.make_head()
        assert not head(environment, None)[environment.species == 1].any()

    def test_is_symmetric_to_the_last_bit(self):
        values = self.make_head()(self.make_environment(), None)
        assert torch.equal(values, values.mT)


@pytest.mark.parametrize("centers", [(), (2,), (0, -1)])
def test_centers_that_do_not_exist(centers):
    with pytest.raises(ValueError, match="got centers .* need indices of some of the 2 species; correct them"):
        VectorHead(2, 6, 5, centers)
