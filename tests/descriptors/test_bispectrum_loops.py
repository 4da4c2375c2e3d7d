"""Compiled loops of the bispectrum against batched products of PyTorch; the definition is in ``test_bispectrum``."""

import numpy as np
import pytest
import torch

from ase_mlelec.compiled import SWITCH
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.descriptors.bispectrum import descriptor
from ase_mlelec.descriptors.bispectrum.sphere import Shells
from ase_mlelec.testing import assert_close

pytest.importorskip("numba", reason="numba is not installed")


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("twojmax, switch", [(1, True), (2, True), (3, False), (8, True), (10, True)])
def test_loops_equal_batched_products(twojmax, switch, dtype, tolerance, monkeypatch):
    """More centers than are evaluated at once, of which some have no neighbors and one sits on an atom."""
    generator = torch.Generator().manual_seed(twojmax)
    vec = 3 * torch.randn(3, 150, 14, generator=generator, dtype=torch.float64)
    vec[:, 7] += 50
    vec[:, 3, 5] = 0
    kind = torch.randint(2, (150, 14), generator=generator)
    shells, found = Shells((4.67637, 3.9), (1.0, -0.6), 0.99363, 0.0, switch), []
    weights = torch.randn(150, Bispectrum(["H"], twojmax).n_features, generator=generator, dtype=torch.float64)
    for fast in "01":
        monkeypatch.setenv(SWITCH, fast)
        leaf = vec.to(dtype).requires_grad_()
        components = descriptor._Components.apply(leaf, kind, shells, twojmax, None)
        found.append((components.detach(), torch.autograd.grad(components, leaf, weights.to(dtype))[0]))
    for one, other in zip(*found):
        assert one.dtype == other.dtype == dtype
        assert_close(other, one, tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 5e-6)])
@pytest.mark.parametrize("n_radial", [1, 2, 16])
def test_radial_sums(n_radial, dtype, tolerance, monkeypatch):
    """Against PyTorch in float64, which is not exact near an atom; more centers than are evaluated at once."""
    generator = torch.Generator().manual_seed(n_radial)
    vec = 3 * torch.randn(3, 29, 14, generator=generator, dtype=torch.float64)
    vec[:, 7] += 50
    vec[:, 3, 5] = 0.1
    kind, found = torch.randint(2, (29, 14), generator=generator), []
    weights = torch.randn(29, 2 * n_radial, generator=generator, dtype=torch.float64)
    for fast, precision in (("0", torch.float64), ("1", dtype)):
        monkeypatch.setenv(SWITCH, fast)
        leaf = vec.to(precision).requires_grad_()
        sums = descriptor.radial_sums(leaf, kind, (4.67637, 3.9), n_radial)
        found.append((sums.detach(), torch.autograd.grad(sums, leaf, weights.to(precision))[0]))
    for one, other in zip(*found):
        assert other.dtype == dtype
        assert_close(other, one, tolerance)


def test_radial_sums_of_an_atom_on_a_center():
    vec = torch.zeros(3, 1, 1, requires_grad=True)
    sums = descriptor.radial_sums(vec, torch.zeros(1, 1, dtype=torch.long), (4.67637,), 16)
    assert_close(sums.detach(), np.ones((1, 16)), 1e-6)
    assert not torch.autograd.grad(sums.sum(), vec)[0].any()


def test_vectors():
    """Operations on rows, and numbers in all lanes."""
    from ase_mlelec.compiled import compiled
    from ase_mlelec.lanes import aligned, every, lanes, load, spread, store, total

    def both(a, b, found):
        x, y = load(a, 1), load(b, 0)
        x += y
        store(found, 0, x * y - spread(a, 2))
        store(found, 1, x / y)
        store(found, 2, every(x, total(y)))

    for dtype, tolerance in (np.float64, 1e-15), (np.float32, 1e-6):
        a, b, found = (aligned((3, lanes(dtype)), dtype) for _ in range(3))
        assert a.ctypes.data % 32 == 0
        a[:], b[:] = np.random.default_rng(0).uniform(1, 2, (2, *a.shape))
        compiled(both)(a, b, found)
        x = a[1] + b[0]
        assert_close(found, [x * b[0] - a.flat[2], x / b[0], np.full(len(x), b[0].sum())], 2 * tolerance)


def test_no_centers():
    empty = torch.zeros(3, 0, 4, dtype=torch.float64).requires_grad_()
    shells = Shells((4.0,), (1.0,), 0.99363, 0.0, True)
    components = descriptor._Components.apply(empty, torch.zeros(0, 4, dtype=torch.long), shells, 4, None)
    assert components.shape == (0, Bispectrum(["H"], 4).n_features)
    assert torch.autograd.grad(components.sum(), empty)[0].shape == empty.shape
