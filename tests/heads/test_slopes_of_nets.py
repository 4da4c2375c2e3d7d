"""Derivatives of fitting nets without a graph, against PyTorch's."""

import pytest
import torch

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.heads import ScalarHead
from ase_mlelec.nets import quick_tanh


def environment(n_species=2, n_features=6):
    generator = torch.Generator().manual_seed(1)
    species = torch.tensor([0, 1, 1, 0, 1]) % n_species
    return Environment(torch.randn(5, n_features, generator=generator, dtype=torch.float64), species)


@pytest.mark.parametrize("timestep", [False, True])
@pytest.mark.parametrize("widths", [(4,), (6, 6, 6), (12, 24, 24), (5, 10, 3)])
@pytest.mark.parametrize("n_species", [1, 2, 3])
def test_energies_and_slopes(n_species, widths, timestep):
    """With and without shortcuts, and with a species that no center has."""
    torch.manual_seed(0)
    head = ScalarHead(n_species, 6, widths, timestep).double()
    head.nets.shift.uniform_(), head.nets.inverse.uniform_(0.5, 2), head.nets.bias.uniform_()
    head.nets.fold()
    where = environment(n_species)
    found = head.with_slopes(where)
    if head.nets.shift is not None:  # a first layer with a shortcut does not absorb the normalization
        assert found is None
        head.nets.shift = None
        found = head.with_slopes(where)
    leaf = Environment(where.features.requires_grad_(True), where.species)
    energies = head(leaf, None)
    (slopes,) = torch.autograd.grad(energies.sum(), leaf.features)
    torch.testing.assert_close(found[0], energies.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found[1], slopes, rtol=1e-12, atol=1e-13)


def test_where_there_is_no_short_way():
    where = environment()
    folded = ScalarHead(2, 6, (4,), activation="gelu").double()
    folded.nets.fold()
    lone = ScalarHead(2, 6, (4,), lone=True).double()
    lone.nets.fold()
    for head in (ScalarHead(2, 6, (4,)).double(), folded, lone):
        assert head.with_slopes(where) is None
    kept = ScalarHead(2, 6, (4,)).double()
    kept.nets.fold()
    assert kept.with_slopes(where.keeping()) is None
    assert kept.with_slopes(where) is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_quick_tanh(dtype):
    x = torch.linspace(-20, 20, 1001, dtype=dtype)
    torch.testing.assert_close(quick_tanh(x.clone()), torch.tanh(x), rtol=4 * torch.finfo(dtype).eps, atol=0)
    leaf = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(quick_tanh(leaf).sum(), leaf)
    torch.testing.assert_close(slope, 1 - torch.tanh(x) ** 2)
