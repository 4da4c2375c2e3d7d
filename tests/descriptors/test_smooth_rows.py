"""The fast operations of DeepPot-SE and their derivatives, against the formulas as torch differentiates them."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ase_mlelec.descriptors.embedding import ChebyshevEmbedding, EmbeddingNets
from ase_mlelec.descriptors.products import ROWS, Products
from ase_mlelec.descriptors.smooth_rows import Shape, SmoothRows, plain_rows


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def vectors(n=40):
    """[3, n], Å, of all distances from inside of the switch to beyond the cutoff."""
    vec = torch.randn(3, n, dtype=torch.float64)
    return vec / vec.norm(dim=0) * torch.linspace(0.7, 4.6, n, dtype=torch.float64)


def both(vec, *arguments):
    """(table, first and second derivatives) of the two, contracted with the same numbers."""
    torch.manual_seed(5)
    probe = torch.randn(plain_rows(vec, *arguments).shape, dtype=torch.float64)
    direction = torch.randn_like(vec)
    for rows in (plain_rows, SmoothRows.apply):
        leaf = vec.clone().requires_grad_()
        (once,) = torch.autograd.grad((rows(leaf, *arguments) * probe).sum(), leaf)
        (again,) = torch.autograd.grad((rows(leaf, *arguments) * probe).sum(), leaf, create_graph=True)
        torch.testing.assert_close(once, again, rtol=1e-12, atol=1e-12)
        yield rows(leaf, *arguments).detach(), once, torch.autograd.grad((again * direction).sum(), leaf)[0]


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("protection", [0.0, 0.3])
@pytest.mark.parametrize(
    "embedding", [ChebyshevEmbedding(1, True, 6, 4, 4.5), EmbeddingNets(1, True, (3, 6))], ids=["series", "nets"]
)
@pytest.mark.parametrize("normalization", [(0.0, 1.0, 1.0), (0.2, 1.7, 0.6), "by neighbor"], ids=str)
def test_rows(l_max, protection, embedding, normalization):
    vec = vectors()
    if normalization == "by neighbor":
        normalization = torch.rand(3, vec.shape[1], dtype=torch.float64) + 0.5
    plain, fast = both(vec, Shape(1.5, 4.5, protection, l_max, embedding), *normalization)
    for expected, found in zip(plain, fast):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_rows_end_smoothly():
    """Beyond the cutoff there is nothing, at it no slope."""
    shape = Shape(1.5, 4.5, 0.0, 3, EmbeddingNets(1, True, (3, 6)))
    vec = torch.tensor([[0.0, 0.0, 2.0], [0.0, 4.6, 4.031128874149275], [4.5, 0.0, 0.0]], dtype=torch.float64)
    leaf = vec.clone().requires_grad_()
    table = SmoothRows.apply(leaf, shape, 0.0, 1.0, 1.0)
    assert (table[1:].abs() < 1e-12).all()
    assert torch.autograd.grad(table[1:].sum(), leaf)[0].abs().max() < 1e-12


@pytest.mark.parametrize("l_max, n_axis", [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_products(l_max, n_axis):
    moments = torch.randn(2, sum(ROWS[:l_max]), 4, dtype=torch.float64, requires_grad=True)
    begin = 0
    blocks = Products.apply(moments, l_max, n_axis).reshape(2, l_max, 4, n_axis)
    for block, size in zip(blocks.unbind(1), ROWS):
        part = moments[:, begin : begin + size]
        torch.testing.assert_close(block, torch.einsum("crm,crn->cmn", part, part[..., :n_axis]))
        begin += size

    def products(t):
        return Products.apply(t, l_max, n_axis)

    assert gradcheck(products, moments) and gradgradcheck(products, moments)


@pytest.mark.parametrize("blocks", [[slice(0, 7)], [slice(0, 4), slice(4, 7)], [slice(3, 7), slice(0, 3)]], ids=str)
@pytest.mark.parametrize("n_basis", [1, 2, 7])
def test_a_series_that_does_not_change(blocks, n_basis):
    """Folded coefficients give what the others do, with derivatives of both orders."""
    embedding = ChebyshevEmbedding(len(blocks), True, n_basis, 3, 4.5).double()
    padded = torch.rand(2, 5, 7, dtype=torch.float64).requires_grad_()
    plain = embedding.moments(padded, blocks, None)
    embedding.settle()
    torch.testing.assert_close(embedding.moments(padded, blocks, None), plain, rtol=1e-13, atol=1e-13)

    def moments(padded):
        return embedding.moments(padded, blocks, None)

    assert gradcheck(moments, padded) and gradgradcheck(moments, padded)


def test_nothing_at_all():
    """No neighbors, and no centers."""
    vec = torch.zeros(3, 0, dtype=torch.float64, requires_grad=True)
    shape = Shape(1.5, 4.5, 0.0, 3, ChebyshevEmbedding(1, True, 6, 4, 4.5))
    table = SmoothRows.apply(vec, shape, 0.0, 1.0, 1.0)
    assert table.shape == (17, 0) and torch.autograd.grad(table.sum(), vec)[0].shape == (3, 0)
    embedding = ChebyshevEmbedding(2, True, 6, 3, 4.5).double()
    embedding.settle()
    for n_centers in (0, 2):
        padded = torch.zeros(n_centers, 17, 0, dtype=torch.float64, requires_grad=True)
        features = Products.apply(embedding.moments(padded, [slice(0, 0)] * 2, None), 3, 2)
        assert features.shape == (n_centers, 18)
        assert torch.autograd.grad(features.sum(), padded)[0].shape == padded.shape
