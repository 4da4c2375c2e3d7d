"""Copies of DeepPot-SE with fewer features that say the same: against the whole descriptor, and in whole models."""

import numpy as np
import pytest
import torch
from small_models import random_descriptor, random_model, sample

from ase_mlelec import DeepPotCalculator
from ase_mlelec.compiled import SWITCH
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.safety import TrainingRange
from ase_mlelec.system import System
from ase_mlelec.testing import assert_close

SERIES = {"n_basis": 5, "widths": (32,)}
KINDS = {
    "series": SERIES,
    "higher channels": {**SERIES, "l_max": 3},
    "nets with empty slots": {"widths": (6, 12, 96)},
    "one species": {"widths": (6, 12, 64), "species": ("Si",)},
    "excluded pairs": {"widths": (6, 12, 96), "excluded_pairs": [("Si", "O", "taken"), ("O", "O", "none")]},
}


def settled(**options):
    """A copy as calculators have it, and the same with fewer features."""
    descriptor = random_descriptor(3, **options).requires_grad_(False).compressed()
    descriptor.settle()
    return descriptor, descriptor.condensed()


def geometry(descriptor, distance=None):
    """System and edges of some atoms; with a distance, Å, two of them are so close."""
    atoms = sample(tuple(descriptor.species)).copy()
    if distance is not None:
        atoms.positions[1] = atoms.positions[0] + [distance, 0, 0]
    system = System.from_atoms(atoms)
    return system, Edges.build(system, descriptor.cutoff)


def slopes_of(features, vec):
    """First and second derivatives of a function of the features by the vectors of the edges."""
    total = features.square().sum() * 1e3  # V^T D has the norm of D
    (slope,) = torch.autograd.grad(total, vec, create_graph=True)
    return slope.detach(), torch.autograd.grad(slope.square().sum(), vec)[0]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_features_follow(kind, fast, monkeypatch):
    if fast:
        pytest.importorskip("numba")
    monkeypatch.setenv(SWITCH, str(int(fast)))
    whole, short = settled(**KINDS[kind])
    assert short.n_features < 0.9 * whole.n_features
    system, edges = geometry(whole)
    found = []
    for descriptor in (whole, short):
        leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
        environment = descriptor(system, leaf)
        assert environment.features.shape == (len(system.numbers), descriptor.n_features)
        found.append([descriptor.whole_features(environment.features).detach()])
        found[-1] += slopes_of(environment.features, leaf.vec)
    for mine, theirs in zip(found[1], found[0]):
        assert float((mine - theirs).abs().max()) <= 2e-12 * float(theirs.abs().max())


def test_linear_functions_of_the_features():
    whole, short = settled(**KINDS["higher channels"])
    table = torch.randn(whole.n_features, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted, found = (made(*geometry(whole)).features for made in (whole, short))
    torch.testing.assert_close(found @ short.shortened(table), wanted @ table, rtol=1e-11, atol=1e-13)


def test_atoms_too_close_for_the_series():
    """The nets themselves are evaluated."""
    whole, short = settled(**KINDS["one species"])
    system, edges = geometry(whole, 0.3)
    assert edges.shortest < whole.closest()
    assert torch.equal(short.whole_features(short(system, edges).features), whole(system, edges).features)
    model = random_model(2, ("energy", "dos"), **KINDS["nets with empty slots"])
    fast = model.for_evaluation()
    assert fast.descriptor.n_features < model.descriptor.n_features
    system, edges = geometry(model.descriptor, 0.3)
    for name, wanted in model(system, edges).items():
        torch.testing.assert_close(fast(system, edges)[name], wanted.detach(), rtol=1e-9, atol=1e-9)
    atoms = sample(("Si", "O")).copy()
    atoms.positions[1] = atoms.positions[0] + [0.3, 0, 0]
    calc = DeepPotCalculator(model)
    forces, step = calc.get_forces(atoms)[1, 0], 1e-5
    atoms.positions[1, 0] += step
    above = calc.get_potential_energy(atoms)
    atoms.positions[1, 0] -= 2 * step
    assert forces == pytest.approx((calc.get_potential_energy(atoms) - above) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("off", [-1e-12, 0.0, 1e-12, 1e-5])
def test_at_the_end_of_the_series(off):
    whole, short = settled(**KINDS["one species"])
    system, edges = geometry(whole, whole.closest() + off)
    wanted, found = (made.whole_features(made(system, edges).features) for made in (whole, short))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_where_there_is_nothing_to_gain():
    for options in ({}, {"n_basis": 5, "widths": (12,)}, {**SERIES, "one_side": False}):
        assert settled(**options)[1] is None
    assert settled(**SERIES)[1].condensed() is None  # it is done already


def test_models_are_condensed():
    """Energy, DOS and ranges of a copy for evaluation against those of the model itself."""
    model = random_model(2, ("energy", "dos"), **KINDS["nets with empty slots"])
    system, edges = geometry(model.descriptor)
    seen = model.descriptor(system, edges)
    counts = torch.bincount(edges.center, minlength=len(system.numbers))
    known = TrainingRange(model.species, model.descriptor.n_features).double()
    model.ranges["descriptor"] = known.fit([(seen.features.detach(), seen.species, counts)] * 20)
    fast = model.for_evaluation()
    assert fast.descriptor.n_features < model.descriptor.n_features
    for name, wanted in model(system, edges).items():
        torch.testing.assert_close(fast(system, edges)[name], wanted.detach(), rtol=1e-9, atol=1e-9)
    moved = System.from_atoms(shaken(0.3))
    near = Edges.build(moved, model.cutoff)
    wanted, found = (
        each.ranges["descriptor"].project(each.descriptor(moved, near).features, model.species_index(moved.numbers))
        for each in (model, fast)
    )
    assert float(wanted.abs().max()) > 1
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-7, atol=1e-7)


def shaken(amplitude):
    atoms = sample(("Si", "O")).copy()
    atoms.rattle(amplitude, seed=1)
    return atoms


def test_heads_that_read_more_keep_all_features():
    for heads in (("energy", "dipole"), ("energy", "dos", "polarizability")):
        model = random_model(2, heads, **SERIES)
        assert model.for_evaluation().descriptor.n_features == model.descriptor.n_features
    model = random_model(2, **SERIES)
    linear = Model(model.descriptor, {"energy": ScalarHead(2, model.descriptor.n_features, ())}).double()
    assert linear.for_evaluation().descriptor.n_features == model.descriptor.n_features


def test_descriptors_of_a_calculator_are_those_of_the_model():
    model, atoms = random_model(2, **SERIES), shaken(0.05)
    system = System.from_atoms(atoms)
    wanted = model.descriptor(system, Edges.build(system, model.cutoff)).features.detach().numpy()
    calc = DeepPotCalculator(model)
    assert calc.models[0].descriptor.n_features < model.descriptor.n_features
    np.testing.assert_allclose(calc.get_descriptors(atoms), wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", ["series", "nets with empty slots"])
def test_a_descriptor_in_use_is_condensed(kind, monkeypatch):
    """Its compiled loops, made when it was first evaluated, are not those of the copy."""
    pytest.importorskip("numba")
    monkeypatch.setenv(SWITCH, "1")
    whole, _ = settled(**KINDS[kind])
    system, edges = geometry(whole)
    wanted, short = whole(system, edges).features, whole.condensed()
    assert_close(short.whole_features(short(system, edges).features), wanted, 1e-9 * float(wanted.abs().max()))
