"""The force term of the LDOS: forces and rows against differences, the solution against brute force, what it gains."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from small_ldos import ATTRIBUTES, CORE, ENERGIES, make_snapshot, random_ldos_model
from small_models import seeded

from ase_mlelec import MLDFTCalculator
from ase_mlelec.data import grid_points
from ase_mlelec.data.grid_points import ForceData, GridData, coarse_shape
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.heads import EnergyZero, LDOSHead
from ase_mlelec.testing import five_point
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.ldos import label_refit as ldos_forces
from ase_mlelec.train.ldos.descent import LDOSLoss, normal_equations, refit_last_layer
from ase_mlelec.train.ldos.errors import ldos_errors
from ase_mlelec.train.ldos.label_refit import (
    energy_metric,
    energy_per_atom,
    force_rows,
    hidden_first_order,
    nearest,
    projected_forces,
    refit_with_labels,
)
from ase_mlelec.train.ldos.standardize import standardize_ldos
from ase_mlelec.train.recipe import train

WITH_CORE = {**ATTRIBUTES, "core_charges": {"Al": CORE}}


def calculator(model, shape, attributes):
    """MLDFTCalculator on a grid of this shape."""
    model.metadata = {**model.metadata, "core_charges": attributes.get("core_charges", {})}
    calc = MLDFTCalculator(model, device="cpu")
    calc.grid = lambda atoms=None: shape
    return calc


def labeled(seed, attributes=ATTRIBUTES, **options):
    """Snapshot with the forces of the model that made its LDOS, on the grid on which training integrates forces."""
    truth = random_ldos_model(77, ("Al",))
    snapshot = make_snapshot(seed, truth=truth, **options)
    calc = calculator(truth, coarse_shape(snapshot.shape), attributes)
    return replace(snapshot, forces=calc.get_property("forces", snapshot.atoms))


@pytest.fixture
def files(tmp_path):
    def write(snapshots, attributes=ATTRIBUTES):
        write_snapshots(tmp_path / "al.h5", snapshots, energies=ENERGIES, attributes=attributes)
        return Snapshots(tmp_path / "al.h5"), tmp_path / "fingerprints.h5"

    return write


def whole_layer(head):
    return torch.cat([head.last.weight, head.last.bias[:, None]], dim=1).detach()


@pytest.mark.parametrize("attributes", [ATTRIBUTES, WITH_CORE], ids=["valence", "core"])
def test_forces_are_those_of_the_calculator(files, attributes):
    """MLDFTCalculator has its derivatives from the descriptor itself."""
    snapshots, cache = files([labeled(1, attributes)], attributes)
    model = random_ldos_model(3, ("Al",))
    item = ForceData(snapshots, model.descriptor, cache, progress=False)[0]
    item = replace(item, features=item.features.double(), slopes=item.slopes.double())
    head = model.heads["ldos"]
    found = projected_forces(head, attributes, item, *hidden_first_order(head, item), whole_layer(head))
    forces = calculator(model, item.shape, attributes).get_property("forces", item.snapshot.atoms)
    wanted = np.einsum("mni,ni->m", item.directions, forces)
    assert abs(wanted).max() > 0.1
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5 * abs(wanted).max())


def test_labels_are_those_of_the_directions(files):
    """Orthonormal directions without translation hold all of the forces but their sum."""
    snapshots, cache = files([labeled(1)])
    item = ForceData(snapshots, random_ldos_model(3, ("Al",)).descriptor, cache, progress=False)[0]
    flat = item.directions.flatten(1)
    assert flat.shape == (9, 12)
    torch.testing.assert_close(flat @ flat.T, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)
    forces = snapshots[0].forces
    np.testing.assert_allclose(
        torch.einsum("m,mni->ni", item.wanted, item.directions).numpy(), forces - forces.mean(axis=0), atol=1e-12
    )


def test_many_atoms_share_few_directions(monkeypatch, files):
    monkeypatch.setattr(grid_points, "DIRECTIONS", 5)
    snapshots, cache = files([labeled(1)])
    item = ForceData(snapshots, random_ldos_model(3, ("Al",)).descriptor, cache, progress=False)[0]
    assert item.slopes.shape[0] == len(item.wanted) == 5
    flat = item.directions.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    np.testing.assert_allclose(item.directions.sum(dim=1).numpy(), 0, atol=1e-12)


def test_rows_against_differences_of_the_calculators_energy(files):
    """Mixed second differences of A in the positions and in the last layer, by MLDFTCalculator alone."""
    snapshots, cache = files([labeled(1)])
    model = random_ldos_model(3, ("Al",))
    head, item = model.heads["ldos"], ForceData(snapshots, model.descriptor, cache, progress=False)[0]
    item = replace(item, features=item.features.double(), slopes=item.slopes.double())
    rows = force_rows(head, ATTRIBUTES, item, *hidden_first_order(head, item), whole_layer(head))
    with seeded(5):
        change = torch.randn(rows.shape[1:], dtype=torch.float64)
    found, start, step = torch.einsum("msh,sh->m", rows, change).numpy(), whole_layer(head), 1e-4
    forces = []
    for sign in (1, -1):
        moved = start + sign * step * change
        head.last.weight.data, head.last.bias.data = moved[:, :-1].clone(), moved[:, -1].clone()
        forces.append(calculator(model, item.shape, ATTRIBUTES).get_property("forces", item.snapshot.atoms))
    wanted = np.einsum("mni,ni->m", item.directions, forces[0] - forces[1]) / (2 * step)
    assert abs(wanted).max() > 0.05
    np.testing.assert_allclose(found, wanted, atol=5e-5 * abs(wanted).max())


def test_nearest_is_least_squares():
    """Against one dense least-squares problem for all entries of X."""
    number = {"dtype": torch.float64}
    with seeded(2):
        left, right, rows = torch.randn(4, 4, **number), torch.randn(6, 6, **number), torch.randn(7, 4, 6, **number)
        wanted, weights = torch.randn(7, **number), torch.rand(7, **number) + 0.1
    found = nearest(left @ left.T, right @ right.T, rows, wanted, weights)
    # tr M X N X^T = |left^T X right|^2
    data = torch.kron(left.T.contiguous(), right.T.contiguous())
    system = torch.cat([data, weights.sqrt()[:, None] * rows.flatten(1)])
    right_side = torch.cat([torch.zeros(24, **number), weights.sqrt() * wanted])
    torch.testing.assert_close(found, torch.linalg.lstsq(system, right_side).solution.reshape(4, 6), rtol=0, atol=1e-8)


def test_metric_is_that_of_ldos_and_density(files):
    """A change of the last layer changes LDOS and density by what LDOSLoss sees, at all points."""
    snapshots, cache = files([labeled(1)])
    model = random_ldos_model(3, ("Al",))
    head, data = model.heads["ldos"].float(), GridData(snapshots, model.descriptor, cache, progress=False)
    with seeded(6):
        change = 0.01 * torch.randn_like(whole_layer(head))
    item = data[0]
    item = replace(item, ldos=head.spectrum(item.features).detach())
    cost = ((energy_metric(head, data) @ change.double() @ normal_equations(head, data, 0.0)[0]) * change).sum()
    head.last.weight.data += change[:, :-1]
    head.last.bias.data += change[:, -1]
    with torch.no_grad():
        wanted = LDOSLoss(ldos=1.0, density=ldos_forces.DENSITY)(head, item)[0]
    assert float(cost) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("hold", [0.0, 0.3])
def test_normal_matrix_is_that_of_the_refit(files, hold):
    """The gradient of what the refit minimizes is 2 (W - W_0) N, by automatic differentiation."""
    snapshots, cache = files([labeled(seed, n_points=50) for seed in (1, 2)])
    model = random_ldos_model(3, ("Al",))
    head, data = model.heads["ldos"].float(), GridData(snapshots, model.descriptor, cache, progress=False)
    before = whole_layer(head).double()
    refit_last_layer(head, data, 30.0, hold)
    best = whole_layer(head).double()
    with seeded(4):
        last = (best + 0.1 * torch.randn_like(best)).requires_grad_(True)
    total = 0.0
    for k in range(len(data)):
        item = data[k]
        hidden = torch.nn.functional.pad(head.activations(item.features).detach().double(), (0, 1), value=1.0)
        spectrum = head.scale * hidden @ last.T
        total = total + (spectrum[item.points] - item.ldos).square().sum() / len(item.points)  # all have 50
        total = total + 30.0 * (spectrum.mean(dim=0) - item.dos / item.volume).square().sum()
        total = total + hold * hidden[item.points].square().mean() * (head.scale * (last - before)).square().sum()
    (gradient,) = torch.autograd.grad(total / head.scale**2, last)
    wanted = 2 * (last.detach() - best) @ normal_equations(head, data, 30.0, hold)[0]
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=2e-4 * float(wanted.abs().max()))


@pytest.mark.slow
def test_refit_reaches_the_forces(files):
    """The more they weigh, the closer they come, and the farther is the last layer from that of the LDOS alone."""
    snapshots, cache = files([labeled(seed, n_points=100) for seed in range(2)])
    model = random_ldos_model(3, ("Al",))
    data = GridData(snapshots, model.descriptor, cache, progress=False)
    forces = ForceData(snapshots, model.descriptor, cache, progress=False)
    head = model.float().heads["ldos"]
    refit_last_layer(head, data, 30.0)
    start, before, after, distances = whole_layer(head), [], [], []
    for weight in (1e-9, 0.1, 10.0):
        head.last.weight.data, head.last.bias.data = start[:, :-1].clone(), start[:, -1].clone()
        errors = refit_with_labels(head, data, forces, weight, 0.0, 30.0, progress=False)["forces"]
        before.append(errors[0])
        after.append(errors[1])
        distances.append(float((whole_layer(head) - start).norm()))
    assert len(set(before)) == 1
    assert after[0] == pytest.approx(before[0], rel=1e-3)
    assert after[2] < after[1] < 0.9 * before[0] and after[2] < before[0] / 2
    assert distances[0] < 1e-2 * distances[1] < 1e-2 * distances[2]
    # the errors that are returned are those of the calculator's forces
    calc, squares = calculator(model, coarse_shape(snapshots[0].shape), ATTRIBUTES), []
    for k, snapshot in enumerate(snapshots):
        error = calc.get_property("forces", snapshot.atoms) - snapshot.forces
        squares.append(np.einsum("mni,ni->m", forces[k].directions, error) ** 2)
    assert np.mean(squares) ** 0.5 == pytest.approx(after[2], rel=1e-2)


def test_fingerprints_are_kept(files):
    snapshots, cache = files([labeled(1)])
    descriptor = random_ldos_model(3, ("Al",)).descriptor
    first = ForceData(snapshots, descriptor, cache, progress=False)[0]
    with h5py.File(cache, "a") as file:
        (key,) = file
        file[key][0] = 7.0
    again = ForceData(snapshots, descriptor, cache, progress=False)[0]
    assert torch.equal(again.slopes, first.slopes) and (again.features == 7).all()


def test_snapshots_without_forces(files):
    snapshots, cache = files([replace(labeled(1), forces=None)])
    with pytest.raises(ValueError, match="'al-1' has no forces"):
        ForceData(snapshots, random_ldos_model(3, ("Al",)).descriptor, cache, progress=False)


@pytest.mark.parametrize("zero", [EnergyZero(), EnergyZero(0.3, {"Al": 20.0})], ids=["no zero", "zero"])
def test_energies_are_those_of_the_calculator(files, zero):
    """Relative to the zero of the head; their derivatives by central differences."""
    snapshots, cache = files([labeled(1)])
    model = random_ldos_model(3, ("Al",), zero=zero)
    head, data = model.heads["ldos"], GridData(snapshots, model.descriptor, cache, progress=False, zero=zero)
    item, snapshot, last = data[0], snapshots[0], whole_layer(model.heads["ldos"]).requires_grad_(True)
    hidden = torch.nn.functional.pad(head.activations(item.features.double()).detach(), (0, 1), value=1.0)

    def energy(layer):
        return energy_per_atom(head, snapshots.attributes, snapshot, hidden, layer)

    calc = calculator(model, snapshot.shape, ATTRIBUTES)
    wanted = calc.get_property("free_energy", snapshot.atoms) - item.level * item.n_electrons
    assert energy(last).item() == pytest.approx(wanted / item.n_atoms, abs=1e-6)  # fingerprints: single precision
    (gradient,) = torch.autograd.grad(energy(last), last)
    with seeded(5), torch.no_grad():
        change = torch.randn_like(last)
        numeric = five_point(lambda step: float(energy(last + step * change)), 1e-3)
    assert float((gradient * change).sum()) == pytest.approx(numeric, rel=1e-7)


@pytest.mark.parametrize("n_linear", [0, 2])
def test_refit_reaches_the_energies(files, n_linear):
    snapshots, cache = files([labeled(seed, n_points=40) for seed in range(3)])
    model = random_ldos_model(3, ("Al",))
    data = GridData(snapshots, model.descriptor, cache, progress=False)
    with seeded(7):
        model.heads["ldos"] = head = LDOSHead(model.descriptor.n_features, ENERGIES, (5,), n_linear=n_linear)
    standardize_ldos(head, data)
    refit_last_layer(head, data, 1.0)
    found = refit_with_labels(head, data, None, 0.0, 100.0, 1.0, progress=False)
    assert list(found) == ["energy"] and found["energy"][1] < 0.2 * found["energy"][0]
    errors = ldos_errors(model, data)["free_energy"]
    # energies of 20 eV from a layer that is kept in single precision
    assert np.mean(errors**2) ** 0.5 == pytest.approx(found["energy"][1], abs=5e-6)


def test_no_energy_without_density(files, tmp_path):
    files([replace(labeled(1, n_points=20), density=None)])
    with pytest.raises(ValueError, match="'al-1' has no density; write it too, or train with energy_weight = 0"):
        train(
            parse_config(
                {
                    "data": {"files": ["al.h5"]},
                    "output": {"model": "al.safetensors"},
                    "bispectrum": {"twojmax": 3},
                    "ldos": {"energy_weight": 1.0},
                },
                tmp_path,
            ),
            progress=False,
        )


@pytest.mark.slow
def test_training_takes_forces_and_energies(files, tmp_path):
    """With their weights, a training ends with the second refit; nothing else is different."""
    snapshots, cache = files([labeled(seed, n_points=60) for seed in (0, 1)])
    models = []
    for weight in (0.0, 0.1):
        models.append(
            train(
                parse_config(
                    {
                        "data": {"files": ["al.h5"]},
                        "output": {"model": f"{weight:g}.safetensors"},
                        "bispectrum": {"twojmax": 3, "cutoff": 3.2, "n_radial": 2},
                        "ldos": {"widths": [4], "epochs": 2, "force_weight": weight, "energy_weight": weight},
                    },
                    tmp_path,
                ),
                progress=False,
            )
        )
    without, with_forces = (model.heads["ldos"] for model in models)
    assert torch.equal(without.hidden[0].weight, with_forces.hidden[0].weight)
    descriptor = models[0].descriptor.double()
    forces = ForceData(snapshots, descriptor, cache, progress=False)
    errors = refit_with_labels(
        without, GridData(snapshots, descriptor, cache, progress=False), forces, 0.1, 0.1, 100.0, progress=False
    )
    assert errors["forces"][1] < errors["forces"][0]
    torch.testing.assert_close(without.last.weight, with_forces.last.weight)
    assert not (tmp_path / "0.1.fingerprints.h5").exists()


def test_bad_weight():
    with pytest.raises(ValueError, match="ldos.force_weight: got -1, need at least 0"):
        parse_config({"data": {"files": ["a.h5"]}, "output": {"model": "a.safetensors"}, "ldos": {"force_weight": -1}})
