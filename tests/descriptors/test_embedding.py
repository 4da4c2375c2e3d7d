"""Moments of Chebyshev series against NumPy's series, their derivatives to third order, and the layout of the edges."""

import numpy as np
import pytest
import torch

from ase_mlelec.descriptors.embedding import ChebyshevMoments
from ase_mlelec.descriptors.padding import pad

BLOCKS = [slice(3, 5), slice(0, 3)]  # of two species, out of order as deep_potential makes them


def padded(n_centers=2, n_rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n_centers, 1 + n_rows, 5, generator=generator, dtype=torch.float64) - 1


def moments(padded, n_basis=6):
    return ChebyshevMoments.apply(padded, BLOCKS, n_basis)[0]


@pytest.mark.parametrize("n_basis", [1, 2, 3, 9, 40])
def test_moments_are_sums_over_the_neighbors_of_each_species(n_basis):
    given = padded()
    found = moments(given, n_basis)
    basis = np.polynomial.chebyshev.chebvander(given[:, 0].numpy(), n_basis - 1)  # [C, n, K]
    for k, block in enumerate(BLOCKS):
        expected = np.einsum("crn,cnk->crk", given[:, 1:, block].numpy(), basis[:, block])
        np.testing.assert_allclose(found[:, :, k].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("n_basis", [1, 2, 7])
def test_first_and_second_derivatives(n_basis):
    given = padded().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda p: moments(p, n_basis), given)
    assert torch.autograd.gradgradcheck(lambda p: moments(p, n_basis), given)


def test_third_derivatives():
    def slope(p):
        return torch.autograd.grad((moments(p) ** 2).sum(), p, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, padded(1, 1).requires_grad_(True))


@pytest.mark.parametrize("kinds", [[0, 1], [1, 0]])
@pytest.mark.parametrize("shuffled", [False, True])
def test_padding_keeps_every_edge_once(kinds, shuffled):
    rng = np.random.default_rng(1)
    center = np.sort(rng.integers(0, 6, 40))
    kind = rng.integers(0, 2, 40)
    if not shuffled:
        order = np.lexsort((np.argsort(kinds)[kind], center))
        center, kind = center[order], kind[order]
    table = torch.arange(1.0, 81.0).reshape(2, 40)
    laid, present, blocks = pad(torch.as_tensor(center), torch.as_tensor(kind), table, 7, kinds)
    for c in range(7):  # the last center has no edges
        for k in range(2):
            chosen = (center == c) & (kind == k)
            assert int(present[c, k]) == chosen.sum()
            found = laid[c, :, blocks[k]]
            assert sorted(found[0][found[0] > 0].tolist()) == table[0, chosen].tolist()
            assert sorted(found[1][found[1] > 0].tolist()) == table[1, chosen].tolist()


def test_padding_of_no_edges():
    empty = torch.zeros(0, dtype=torch.long)
    laid, present, blocks = pad(empty, empty, torch.zeros(5, 0), 3, [1, 0])
    assert laid.shape == (3, 5, 0) and present.tolist() == [[0, 0]] * 3 and blocks == [slice(0, 0)] * 2
