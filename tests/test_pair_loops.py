"""Compiled loops over pairs against operations of NumPy and PyTorch; needs ``ase-mlelec[fast]``."""

import numpy as np
import pytest
import torch
from ase.calculators.calculator import InputError

from ase_mlelec.calculators.potential import potential_results
from ase_mlelec.compiled import SWITCH
from ase_mlelec.edges import EdgeCache, Edges
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

pytest.importorskip("numba")


def each_way(function, monkeypatch):
    found = []
    for fast in "01":
        monkeypatch.setenv(SWITCH, fast)
        found.append(function())
    return found


@pytest.mark.parametrize("pbc", [True, False, [True, False, True]])
def test_the_same_pairs(pbc, monkeypatch):
    """After moves, with pairs of the skin that come and go."""
    atoms = random_atoms("Si8O8", cell=[5.2, 5.6, 5.9], seed=3)
    atoms.pbc = pbc
    caches, rng = [EdgeCache(4.0, 0.5), EdgeCache(4.0, 0.5)], np.random.default_rng(0)
    for _ in range(3):
        atoms.positions += rng.uniform(-0.05, 0.05, atoms.positions.shape)
        ways = iter(caches)
        plain, fast = each_way(lambda: next(ways).edges(System.from_atoms(atoms)), monkeypatch)
        for name in ("center", "neighbor", "shift", "atoms"):
            assert torch.equal(getattr(plain, name), getattr(fast, name))
        torch.testing.assert_close(fast.vec, plain.vec, rtol=0, atol=1e-14)
        assert fast.vec.stride() == plain.vec.stride()  # planes
        assert abs(fast.shortest - plain.shortest) < 1e-14


def test_atoms_that_overlap(monkeypatch):
    atoms = random_atoms("Si4", cell=[5.2, 5.6, 5.9], seed=3)
    atoms.positions[2] = atoms.positions[1] + 0.01

    def message():
        with pytest.raises(InputError, match="atoms . and . overlap") as error:
            EdgeCache(4.0, 0.5).edges(System.from_atoms(atoms))
        return str(error.value)

    assert len(set(each_way(message, monkeypatch))) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_forces_and_stresses(dtype, monkeypatch):
    edges = Edges.build(System.from_atoms(random_atoms("Si8O8", cell=[5.2, 5.6, 5.9], seed=3)), 4.0)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(len(edges.center), 3, generator=generator, dtype=torch.float64).to(dtype)
    energies = torch.zeros(edges.n_centers, dtype=dtype)
    plain, fast = each_way(lambda: potential_results(energies, gradient, edges, volume=170.0), monkeypatch)
    assert plain.keys() == fast.keys()
    for name in ("forces", "stress", "stresses"):
        np.testing.assert_allclose(fast[name], plain[name], rtol=0, atol=1e-14 * np.abs(plain[name]).max())
