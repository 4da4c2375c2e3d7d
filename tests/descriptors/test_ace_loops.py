"""Sums of ACE invariants without the invariants, by PyTorch and by compiled loops, against the features themselves.

Loops are tested where numba is installed (``pip install ase-mlelec[fast]``).
"""

import importlib.util

import numpy as np
import pytest
import torch
from ase.build import bulk, mx2

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.calculators import evaluation
from ase_mlelec.compiled import SWITCH
from ase_mlelec.descriptors import ACE
from ase_mlelec.descriptors.ace import Order, standard_orders
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

EACH_WAY = pytest.mark.parametrize(
    "fast",
    [
        pytest.param(False, id="torch"),
        pytest.param(
            True,
            id="loops",
            marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed"),
        ),
    ],
)
ORDERS = {
    "five bodies": standard_orders(cutoff=3.9, n_pair=5, n_radial=3, l_max=4, near=3.0, max_roughness=6.0),
    "scalars": (Order(3.9, 4), Order(3.9, 3, 3, 5.0), *(Order(3.0, 2, 3, limit, scalars=True) for limit in (5.0, 2.5))),
    "own cutoffs": (Order(3.1, 4, 0, 6.0), Order(3.9, 3, 2, 4.0), Order(3.0, 2, 2, 0), Order(2.9, 3, 2, 2.2)),
    "pairs": (Order(3.9, 3),),
    "one cutoff": (Order(3.9, 4), Order(3.9, 4, 2), Order(3.9, 4, 2, 3.0)),
}
KINDS = {"one": ("Si",), "two": ("Si", "O"), "three": ("O", "H", "Si")}  # not in the order of atomic numbers


def structure(species, n=5, seed=4):
    """Some atoms, the last of which sees no other."""
    atoms = random_atoms("".join(f"{symbol}{n}" for symbol in species), cell=[4.4, 5.2, 5.0], seed=seed)
    atoms.pbc = [True, True, False]
    atoms.cell[2, 2] = 40
    atoms.positions[-1, 2] += 20
    return atoms


def evaluated(descriptor, atoms, dtype=torch.float64):
    """Features and sums of a copy that is only evaluated, with their gradients by the vectors."""
    system = System.from_atoms(atoms, dtype)
    edges = Edges.build(system, descriptor.cutoff)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(len(descriptor.species), descriptor.n_features, generator=generator, dtype=torch.float64)
    weights, of_center = weights.to(dtype), torch.rand(len(atoms), generator=generator, dtype=torch.float64).to(dtype)
    found = []
    for function in (
        lambda leaf: (descriptor(system, leaf).features * weights[descriptor(system, leaf).species]).sum(dim=1),
        lambda leaf: descriptor.weighted_sums(system, leaf, weights),
    ):
        leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
        sums = function(leaf)
        found.append((sums.detach(), torch.autograd.grad((sums * of_center).sum(), leaf.vec)[0]))
    with torch.no_grad():
        return descriptor(system, edges).features, found


@EACH_WAY
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_sums_with_gradient(dtype, tolerance, fast, monkeypatch):
    """Sums and derivatives without a graph; edges beyond the cutoff have none."""
    monkeypatch.setenv(SWITCH, str(int(fast)))
    descriptor = ACE(("Si", "O"), inner=1.3, orders=ORDERS["five bodies"]).double()
    system = System.from_atoms(structure(("Si", "O")))
    edges = Edges.build(system, descriptor.cutoff + 1)
    weights = torch.randn(2, descriptor.n_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
    environment = descriptor(system, leaf.up_to(descriptor.cutoff))
    wanted = (environment.features * weights[environment.species]).sum(dim=1)
    (slopes,) = torch.autograd.grad(wanted.sum(), leaf.vec)
    other = descriptor.to(dtype)
    other.settle()
    sums, gradient = other.sums_with_gradient(system, edges, weights.to(dtype))
    assert_close(sums, wanted.detach(), tolerance)
    assert_close(gradient, slopes, tolerance)
    assert not gradient[edges.vec.norm(dim=1) >= descriptor.cutoff].any()


def assert_close(found, wanted, tolerance=1e-12):
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


@EACH_WAY
@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("kinds", KINDS)
def test_sums_equal_those_of_the_features(kinds, orders, fast, monkeypatch):
    monkeypatch.setenv(SWITCH, str(int(fast)))
    plain, settled = (ACE(KINDS[kinds], inner=1.3, orders=ORDERS[orders]).double() for _ in range(2))
    settled.settle()
    atoms = structure(KINDS[kinds])
    features, wanted = evaluated(plain, atoms)
    found, others = evaluated(settled, atoms)
    assert_close(found, features)
    assert not found[-1].any()
    for sums, gradient in others:
        assert_close(sums, wanted[0][0])
        assert_close(gradient, wanted[0][1])


@EACH_WAY
def test_single_precision(fast, monkeypatch):
    monkeypatch.setenv(SWITCH, str(int(fast)))
    exact, single = (
        ACE(("Si", "O"), inner=1.3, orders=ORDERS["five bodies"]).to(t) for t in (torch.float64, torch.float32)
    )
    single.settle()
    atoms = structure(("Si", "O"))
    wanted = evaluated(exact, atoms)[1][0]
    for sums, gradient in evaluated(single, atoms, torch.float32)[1]:
        assert sums.dtype == gradient.dtype == torch.float32
        assert_close(sums, wanted[0], 1e-4)
        assert_close(gradient, wanted[1], 1e-4)


@EACH_WAY
def test_no_atoms_and_no_edges(fast, monkeypatch):
    monkeypatch.setenv(SWITCH, str(int(fast)))
    descriptor = ACE(("Si", "O"), inner=1.3, orders=ORDERS["five bodies"]).double()
    descriptor.settle()
    system = System.from_atoms(structure(("Si", "O")))
    edges = Edges.build(system, descriptor.cutoff)
    weights = torch.ones(2, descriptor.n_features, dtype=torch.float64)
    for rows in (torch.tensor([], dtype=torch.long), torch.tensor([9])):
        part = edges.at_centers(rows)
        assert descriptor(system, part).features.shape == (len(rows), descriptor.n_features)
        assert descriptor.weighted_sums(system, part, weights).tolist() == [0.0] * len(rows)


@EACH_WAY
def test_second_derivatives_of_features(fast, monkeypatch):
    monkeypatch.setenv(SWITCH, str(int(fast)))
    found = []
    for settle in (False, True):
        descriptor = ACE(("Si", "O"), inner=1.3, orders=ORDERS["five bodies"]).double()
        if settle:
            descriptor.settle()
        system = System.from_atoms(structure(("Si", "O")))
        edges = Edges.build(system, descriptor.cutoff)
        leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
        (slope,) = torch.autograd.grad(descriptor(system, leaf).features.square().sum(), leaf.vec, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), leaf.vec)[0])
    assert_close(found[1], found[0])


def linear_model(lone=False):
    """Linear energy with the normalization and the size that data would give it."""
    descriptor = ACE(("Si", "O"), inner=1.3, orders=ORDERS["scalars"]).double()
    features = evaluated(descriptor, structure(("Si", "O")))[0]
    head = ScalarHead(2, descriptor.n_features, ()).double()
    with torch.no_grad():
        head.nets.shift += features.mean(dim=0)
        head.nets.inverse /= 0.1 + features.std(dim=0)
        head.nets.bias -= torch.tensor([[100.0], [400.0]], dtype=torch.float64)
    if lone:
        head.add_lone(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]))
    return Model(descriptor, {"energy": head})


@EACH_WAY
@pytest.mark.parametrize("lone", [False, True])
def test_calculator_equals_the_features(lone, fast, monkeypatch):
    """Chunk by chunk, beside a committee of the model itself, whose features are looked at, and with small chunks."""
    monkeypatch.setenv(SWITCH, str(int(fast)))
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    model, atoms = linear_model(lone), structure(("Si", "O"))
    calc = DeepPotCalculator(model, device="cpu")
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.cutoff)
    leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
    energies = model(system, leaf, ["energy"])["energy"]
    (gradient,) = torch.autograd.grad(energies.sum(), leaf.vec)
    forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
    forces = forces.index_add(0, edges.center, gradient).index_add(0, edges.neighbor, -gradient)
    np.testing.assert_allclose(calc.get_property("energies", atoms), energies.detach(), rtol=1e-13)
    np.testing.assert_allclose(calc.get_property("forces", atoms), forces, atol=1e-12 * float(forces.abs().max()))
    assert (model.for_evaluation().linear_energy(system, edges) is None) == lone


@EACH_WAY
def test_shipped_model_with_its_core(fast, monkeypatch):
    """``mos2``, with two atoms so close that its repulsive core acts: with the features and without."""
    monkeypatch.setenv(SWITCH, str(int(fast)))
    atoms = mx2("MoS2", a=3.2, thickness=3.1, size=(2, 2, 1), vacuum=8)
    atoms.rattle(0.05, seed=1)
    atoms.positions[1] += 0.45 * (atoms.positions[0] - atoms.positions[1])
    model = load_model("mos2").for_evaluation()
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.descriptor.cutoff)
    leaf = edges.with_vec(edges.vec.clone().requires_grad_(True))
    energies = model.evaluate_head("energy", model.descriptor(system, leaf), system, leaf)
    found = [(energies.detach(), torch.autograd.grad(energies.sum(), leaf.vec)[0]), model.linear_energy(system, edges)]
    core = model.core
    model.core = None
    assert float((model.linear_energy(system, edges)[0] - found[1][0]).abs().max()) > 1  # eV: the core acts
    model.core = core
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-12)
    assert_close(found[1][1], found[0][1])


def test_nets_with_hidden_layers_are_not_linear():
    head = ScalarHead(1, 3, (4,)).double()
    assert head.as_linear() is None
    head.nets.fold()
    assert head.as_linear() is None


def test_other_structures_and_models_are_not_mixed_up():
    """A calculator that looks at the features now and then gives the same energies in between."""
    calc = DeepPotCalculator(linear_model(), device="cpu", on_extrapolation="ignore")
    atoms = bulk("Si", cubic=True)
    energies = []
    for k in range(3):
        atoms.positions[0, 0] = 0.01 * (k % 2)
        energies.append(calc.get_potential_energy(atoms))
    assert energies[0] == pytest.approx(energies[2], rel=1e-13) and abs(energies[1] - energies[0]) > 1e-6


@EACH_WAY
@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("species", KINDS.values(), ids=KINDS)
def test_derivatives_by_all_coordinates(fast, species, orders, monkeypatch):
    """Summed over the centers, against one derivative after the other by automatic differentiation."""
    monkeypatch.setenv(SWITCH, str(int(fast)))
    made = ACE(species, inner=1.2, orders=ORDERS[orders]).double()
    system = System.from_atoms(structure(species))
    edges = Edges.build(system, made.cutoff)
    expected = super(ACE, made).summed_gradients(system, edges)
    size = float(expected.abs().max())
    torch.testing.assert_close(made.summed_gradients(system, edges), expected, rtol=0, atol=1e-12 * size)
    without = made.summed_gradients(system, edges, strain=False)
    torch.testing.assert_close(without, expected[: 3 * len(system.numbers)], rtol=0, atol=1e-12 * size)


def test_derivatives_without_edges():
    """An atom alone has none."""
    made = ACE(["Si"], inner=1.2, orders=ORDERS["scalars"]).double()
    system = System.from_atoms(structure(["Si"], n=1))
    assert not made.summed_gradients(system, Edges.build(system, made.cutoff)).any()
