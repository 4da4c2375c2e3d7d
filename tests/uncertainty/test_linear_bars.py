"""Bars of forces of energies that are linear in ACE features, without a graph, against gradients with one."""

import importlib.util

import numpy as np
import pytest
import torch
from small_models import random_model, seeded

from ase_mlelec import DeepPotCalculator
from ase_mlelec.compiled import SWITCH
from ase_mlelec.descriptors import ACE
from ase_mlelec.descriptors.ace import standard_orders
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms
from ase_mlelec.uncertainty import Posterior, deviations_of_forces, leverage_around, slopes_of_energies

NEEDS_NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
EACH_WAY = pytest.mark.parametrize("fast", ["0", pytest.param("1", marks=NEEDS_NUMBA)], ids=["torch", "loops"])
SPECIES = ("Si", "O")


def linear_model():
    """A linear energy of ACE features that are standardized, with a posterior."""
    orders = standard_orders(cutoff=3.9, n_pair=4, n_radial=3, l_max=3, near=3.0, max_roughness=5.0)
    descriptor = ACE(SPECIES, inner=1.3, orders=orders)
    with seeded(1):
        head = ScalarHead(2, descriptor.n_features, ())
        head.nets.shift.normal_()
        head.nets.inverse.uniform_(0.5, 2)
        head.nets.scale.fill_(0.7)
        factor = torch.randn(2 * (descriptor.n_features + 1), 9).double()
    posterior = Posterior.from_factors(factor, torch.full((1, 1), 1.3).double(), n_species=2)
    posterior.scales, posterior.floors = {"energy": 1.1, "forces": 0.3, "members": 1.0}, {"forces": 0.2}
    return Model(descriptor, {"energy": head}, posteriors={"energy": posterior}).double()


def bars_with_a_graph(model, atoms):
    """(bars of forces, forces of the model), by automatic derivatives of the inputs of the last layer by the positions."""
    head, posterior = model.heads["energy"], model.posteriors["energy"]
    system = System.from_atoms(atoms)
    positions = system.positions.clone().requires_grad_(True)
    edges = Edges.build(system, model.cutoff)
    moved = (
        edges.vec + (positions - positions.detach())[edges.neighbor] - (positions - positions.detach())[edges.center]
    )
    environment = model.environment("energy", system, edges.with_vec(moved))
    inputs, nets = head.last_inputs(environment)
    along = [
        torch.autograd.grad(inputs, positions, each, retain_graph=True)[0]
        for each in slopes_of_energies(posterior, nets)
    ]
    own = head(environment, edges).sum()
    with torch.no_grad():
        leverage = posterior.coordinates(inputs, nets).square().sum(dim=1)
        around = leverage_around(leverage, edges, model.descriptor.cutoff)
        batch = torch.zeros(len(atoms), dtype=torch.long)
        found = deviations_of_forces(torch.stack(along), around, batch, floor=posterior.floor("forces"))
    return posterior.scale("forces") * found.numpy(), -torch.autograd.grad(own, positions)[0].numpy()


@EACH_WAY
@pytest.mark.parametrize("n", [1, 4])
def test_bars_of_forces(fast, n, monkeypatch):
    """Those of the first structure, and of later ones, for which the evaluation keeps what they need."""
    monkeypatch.setenv(SWITCH, fast)
    model = linear_model()
    calc, atoms = DeepPotCalculator(model), random_atoms(f"Si{n}O{n}", cell=[4.4, 5.2, 5.0], seed=3)
    for _ in range(3):
        wanted, forces = bars_with_a_graph(model, atoms)
        np.testing.assert_allclose(calc.get_property("forces", atoms), forces, atol=1e-10 * abs(forces).max())
        found = calc.get_uncertainty("forces", atoms=atoms)
        np.testing.assert_allclose(found, wanted, atol=1e-10 * wanted.max())
        other = DeepPotCalculator(model)
        np.testing.assert_allclose(other.get_uncertainty("stress", atoms=atoms), calc.uncertainty["stress"], rtol=1e-9)
        assert found.std() > 0
        atoms.rattle(0.05, seed=len(forces))


def test_directions_follow_the_posterior():
    """After a change of the posterior or the head, bars are those of the changed ones."""
    model = linear_model()
    before = model.linear_bars
    assert model.linear_bars is before
    model.posteriors["energy"].inputs.mul_(2)
    assert float((model.linear_bars.directions - 2 * before.directions).abs().max()) <= 1e-12
    model.heads["energy"].nets.inverse.mul_(2)
    assert float((model.linear_bars.inputs - 4 * before.inputs).abs().max()) <= 1e-10


def test_environments_are_those_of_other_heads():
    """With the vectors of a descriptor that has some, which dipoles of the same descriptor need."""
    descriptor = random_model(heads=("energy",), species=SPECIES).descriptor
    head = ScalarHead(2, descriptor.n_features, ())
    posterior = Posterior.from_factors(torch.eye(2 * (descriptor.n_features + 1)), torch.ones(1, 1), n_species=2)
    model = Model(descriptor, {"energy": head}, posteriors={"energy": posterior}).double()
    system = System.from_atoms(random_atoms("Si2O2", cell=[4.4, 5.2, 5.0], seed=3))
    edges = Edges.build(system, model.cutoff)
    found, wanted = (
        model.linear_energy_with_environment(system, edges, directions=True)[0],
        model.environment("energy", system, edges),
    )
    assert wanted.frame is not None
    for mine, other in ((found.features, wanted.features), (found.frame, wanted.frame)):
        torch.testing.assert_close(mine, other.detach())
        assert not mine.requires_grad


@EACH_WAY
def test_bars_of_energies_share_the_evaluation(fast, monkeypatch):
    """From the second structure on the descriptor is evaluated once for energy, forces and bars, with the same numbers."""
    monkeypatch.setenv(SWITCH, fast)
    model, calls = linear_model(), []
    calc, first, second = (
        DeepPotCalculator(model),
        *(random_atoms("Si2O2", cell=[4.4, 5.2, 5.0], seed=k) for k in (3, 4)),
    )
    wanted = {name: DeepPotCalculator(model).get_uncertainty(name, atoms=second) for name in ("energy", "energies")}
    forces = DeepPotCalculator(model).get_property("forces", second)
    calc.get_property("forces", first), calc.get_uncertainty("energy", atoms=first)
    for name in ("forward", "sums_with_gradient", "sums_with_environment"):
        own = getattr(ACE, name)
        monkeypatch.setattr(ACE, name, lambda *given, own=own, **named: calls.append(1) or own(*given, **named))
    np.testing.assert_allclose(calc.get_property("forces", second), forces, atol=1e-12 * abs(forces).max())
    n_calls = len(calls)
    for name, value in wanted.items():
        np.testing.assert_allclose(calc.get_uncertainty(name, atoms=second), value, rtol=1e-9)
    assert len(calls) == n_calls > 0
