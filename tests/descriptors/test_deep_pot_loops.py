"""Moments of DeepPot-SE by compiled loops against those by operations of PyTorch; needs ``ase-mlelec[fast]``."""

import pytest
import torch
from small_models import random_descriptor

from ase_mlelec.compiled import SWITCH
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

pytest.importorskip("numba")

KINDS = {
    "series": {"n_basis": 5, "l_max": 3},
    "series of odd and even length": {"n_basis": 8, "l_max": 2},
    "products": {"n_basis": 6, "l_max": 2, "n_products": 2},
    "one term": {"n_basis": 1},
    "nets with empty slots": {},
    "nets without": {"mean": False, "l_max": 3},
    "one species": {"species": ("Si",)},
    "three species": {"species": ("O", "Si", "H"), "n_basis": 4},
}


def structure(species):
    """Some atoms, the last of which sees no other."""
    atoms = random_atoms("".join(f"{symbol}5" for symbol in species), cell=[5.2, 5.6, 5.9], seed=4)
    atoms.pbc = [True, True, False]
    atoms.positions[-1, 2] += 20
    return atoms


def evaluated(descriptor, fast, monkeypatch, atoms=None):
    """Features and frame with their first and second derivatives along random directions, as one list of Tensor."""
    monkeypatch.setenv(SWITCH, str(int(fast)))
    system = System.from_atoms(structure(descriptor.species) if atoms is None else atoms)
    edges = Edges.build(system, descriptor.cutoff)
    leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
    environment = descriptor(system, leaf)
    found = [environment.features.detach(), environment.frame.detach()]
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum()
        for part in environment_of(environment)
    )
    found.append(torch.autograd.grad(total, leaf.vec, retain_graph=True)[0])
    (slope,) = torch.autograd.grad(total, leaf.vec, create_graph=True)
    found.append(torch.autograd.grad(slope.square().sum(), leaf.vec)[0])
    return found


def environment_of(environment):
    return environment.features, environment.frame


def settled(**options):
    descriptor = random_descriptor(3, **options).requires_grad_(False).compressed()
    descriptor.settle()
    return descriptor


@pytest.mark.parametrize("kind", KINDS)
def test_as_operations_of_torch(kind, monkeypatch):
    descriptor = settled(**KINDS[kind])
    wanted = evaluated(descriptor, False, monkeypatch)
    assert descriptor.loops is None
    found = evaluated(descriptor, True, monkeypatch)
    assert descriptor.loops is not None
    for mine, theirs in zip(found, wanted):
        assert float((mine - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max())


def test_atoms_too_close_for_the_series(monkeypatch):
    """The nets themselves are evaluated, as without loops."""
    descriptor = settled()
    atoms = structure(descriptor.species)
    atoms.positions[1] = atoms.positions[0] + [0.3, 0, 0]
    wanted, found = (evaluated(descriptor, fast, monkeypatch, atoms) for fast in (False, True))
    for mine, theirs in zip(found, wanted):
        assert torch.equal(mine, theirs)


def test_no_atoms_and_no_edges(monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    system = System.from_atoms(structure(("Si", "O")))
    edges = Edges.build(system, 4.0)
    for options in ({}, {"n_basis": 4}):
        descriptor = settled(**options)
        for rows in (torch.tensor([], dtype=torch.long), torch.tensor([9])):
            assert descriptor(system, edges.at_centers(rows)).features.shape == (len(rows), descriptor.n_features)
    assert not descriptor(system, edges.at_centers(torch.tensor([9]))).features.any()


@pytest.mark.parametrize(
    "options", [{"excluded_pairs": (("Si", "O", "taken"),)}, {"protection": 0.1}, {"one_side": False, "n_basis": 4}]
)
def test_what_has_no_loops(options, monkeypatch):
    descriptor = settled(**options)
    evaluated(descriptor, True, monkeypatch)
    assert descriptor.loops is None
