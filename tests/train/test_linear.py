"""Energies that are linear in the features: the closed form is the minimum, finds the truth, and makes whole models."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces
from small_data import make_frames

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames, join, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.testing import random_atoms
from ase_mlelec.train import checked_rows, linear, linear_energy
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.linear import RidgeRegression, own_sizes
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.losses import EnergyLoss, energy_and_derivatives
from ase_mlelec.train.recipe import train
from ase_mlelec.train.standardize import standardize


@functools.cache
def cells():
    """Of different sizes and compositions."""
    formulas = 14 * ("Cu2Au", "CuAu3", "Cu4")
    return [random_atoms(formula, cell=[4.0, 4.3, 4.6], seed=k) for k, formula in enumerate(formulas)]


def alloy(n=12):
    """Cells with noise for labels, some forces strong."""
    rng, frames = np.random.default_rng(0), []
    for k in range(n):
        atoms = cells()[k].copy()
        frames.append(
            Frame(
                atoms,
                {
                    "energy": rng.normal(),
                    "forces": rng.normal(0, 3, (len(atoms), 3)),
                    "virial": rng.normal(size=(3, 3)),
                },
                f"x{k}",
            )
        )
    return Frames(frames)


def linear_model(frames, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        descriptor = DeepPotSE(["Au", "Cu"], 4.0, 1.5, (3,), 3, l_max=2, n_basis=4)
        model = Model(descriptor, {"energy": ScalarHead(2, descriptor.n_features, ())}).double()
    standardize(model, frames)
    return model


@pytest.mark.parametrize(
    "loss",
    [
        EnergyLoss((9, 2.0), (9, 0.5), (9, 0.1)),
        EnergyLoss((9, 1.0), (0, 0), (0, 0)),
        EnergyLoss((0, 0), (9, 1.0), (9, 0.2), strong_force=2.0),
    ],
)
def test_least_of_the_loss(loss):
    """No gradient of the loss that steps would follow is left, whatever the weights were before."""
    frames = alloy()
    model = linear_model(frames)
    weights = [layer.weight for layer in model.heads["energy"].nets.last]

    def gradient():
        batch = Batches.for_model(model, frames, loss.labels).batch(range(len(frames)))
        value, _ = loss(model, batch, 0.0)
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])

    before = gradient()
    fit_linear(model, frames, loss, 1e-13, batch_size=5, progress=False)
    assert gradient().norm() < 1e-6 * before.norm()


def test_ridge_draws_to_the_weights_before():
    frames, loss = alloy(), EnergyLoss((1, 1.0), (1, 1.0), (0, 0))
    model = linear_model(frames)
    start = copy.deepcopy(model.heads["energy"].nets.last.state_dict())
    for ridge, low, high in ((1e9, 0, 1e-6), (1e-6, 1e-3, 1e9)):
        model.heads["energy"].nets.last.load_state_dict(start)
        fit_linear(model, frames, loss, ridge, progress=False)
        moved = max(
            float((value - start[name]).abs().max())
            for name, value in model.heads["energy"].nets.last.state_dict().items()
        )
        assert low <= moved < high


def test_finds_the_truth():
    """Labels of a linear model come back on structures that were not in the fit."""
    frames = alloy(40)
    truth = linear_model(frames, seed=1)
    labeled = copy.deepcopy(frames)
    batches = Batches.for_model(truth, frames, ("energy",))
    for k, frame in enumerate(labeled):
        energy, found = energy_and_derivatives(truth, batches.batch([k]))
        frame.labels.update(
            energy=float(energy.detach()),
            forces=found["forces"].detach().numpy(),
            virial=found["virial"][0].detach().numpy(),
        )
    model = copy.deepcopy(truth)
    for layer in model.heads["energy"].nets.last:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    seen = labeled.where(lambda frame: int(frame.name[1:]) < 25)
    fit_linear(model, seen, EnergyLoss((1, 1.0), (1, 1.0), (1, 1.0)), 1e-13, progress=False)
    unseen = Batches.for_model(model, labeled, ("energy",)).batch(range(25, 40))
    for one, two in zip(_flat(model, unseen), _flat(truth, unseen)):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def _flat(model, batch):
    energy, found = energy_and_derivatives(model, batch)
    return [energy.detach(), *(value.detach() for value in found.values())]


def test_in_one_command(tmp_path):
    """From data to a calculator; fine-tuning goes on from the weights."""
    frames = make_frames(15)
    write_hdf5(tmp_path / "cu.h5", frames)
    table = {
        "data": {"files": ["cu.h5"]},
        "output": {"model": "cu.safetensors"},
        "energy": {"widths": []},
        "descriptor": {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 4, "l_max": 2, "n_basis": 5},
    }
    first = train(parse_config(table, tmp_path), progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cu.h5", "cu.safetensors"]
    forces = np.concatenate([frame.labels["forces"] for frame in frames])
    assert first.metadata["errors"]["test"]["forces_mae_meV_per_A"] < 100 * abs(forces).mean()  # a tenth of them
    atoms = frames.frames[0].atoms
    atoms.calc = DeepPotCalculator(load_model(tmp_path / "cu.safetensors"), device="cpu", on_extrapolation="ignore")
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-5)
    held = table | {
        "start": "cu.safetensors",
        "energy": {"widths": [], "ridge": 1e9},
        "output": {"model": "held.safetensors"},
    }
    again = train(parse_config(held, tmp_path), progress=False)
    for part in ("descriptor", "heads"):
        states = (getattr(model, part).state_dict().values() for model in (first, again))
        for one, two in zip(*states, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="energy.ridge: got 0, need more than 0"):
        parse_config(table | {"energy": {"widths": [], "ridge": 0.0}}, tmp_path)


def test_power_spectrum_in_one_command(tmp_path):
    """With a ridge by roughness, few structures suffice: a third of the errors of the descriptor drawn at random."""
    frames = make_frames(25)
    write_hdf5(tmp_path / "cu.h5", frames)
    table = {"data": {"files": ["cu.h5"]}, "output": {"model": "cu.safetensors"}, "energy": {"widths": []}}
    drawn = {"descriptor": {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 4, "l_max": 2, "n_basis": 5}}
    fixed = {"power_spectrum": {"cutoff": 4.0, "inner": 2.2, "n_pair": 8, "n_radial": 4, "l_max": 4, "near": 3.5}}
    models = [train(parse_config(table | options, tmp_path), progress=False) for options in (drawn, fixed)]
    first, second = (model.metadata["errors"]["test"]["forces_mae_meV_per_A"] for model in models)
    assert second < first / 3
    atoms = frames.frames[0].atoms
    atoms.calc = DeepPotCalculator(load_model(tmp_path / "cu.safetensors"), device="cpu", on_extrapolation="ignore")
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-5)
    with pytest.raises(ValueError, match="power_spectrum. beside .descriptor.; leave one out"):
        parse_config(table | fixed | drawn, tmp_path)
    directed = {name: entry for name, entry in table.items() if name != "energy"} | {"dipole": {}}
    with pytest.raises(ValueError, match="power_spectrum. for .dipole., but it has no directions"):
        parse_config(directed | fixed, tmp_path)
    (tmp_path / "far").mkdir()
    alone = Frame(Atoms("Cu2", [[0, 0, 0], [0, 0, 9]]), {"energy": 1.0, "forces": np.zeros((2, 3))})
    write_hdf5(tmp_path / "far" / "cu.h5", Frames([alone] * 3))
    with pytest.raises(ValueError, match="no atoms within 6 Å.*; give power_spectrum.inner"):
        train(parse_config(table | {"power_spectrum": {"cutoff": 4.0}}, tmp_path / "far"), progress=False)
    other = table | drawn | {"start": "cu.safetensors", "output": {"model": "other.safetensors"}}
    with pytest.raises(ValueError, match="start: got .* of the energy, the model that training starts from has"):
        train(parse_config(other, tmp_path), progress=False)


def test_configuration_weights():
    """Twice as much: as if each of them were there twice; a billionth: next to nothing; the same for both dual and
    primal."""
    frames, loss = alloy(), EnergyLoss((1, 1.0), (1, 0.5), (0, 0), strong_force=2.0)
    near, far = frames.where(lambda f: int(f.name[1:]) < 7), frames.where(lambda f: int(f.name[1:]) >= 7)
    model = linear_model(frames)
    start = copy.deepcopy(model.state_dict())

    def fitted(weight, times=1):
        model.load_state_dict(start)
        parts = [near] + times * [Frames([replace(frame, weight=weight) for frame in far])]
        fit_linear(model, join(parts), loss, 1e-7, progress=False)
        return _weights(model)

    model.load_state_dict(start)
    fit_linear(model, near, loss, 1e-7, progress=False)
    alone, twice = _weights(model), fitted(1.0, times=2)
    torch.testing.assert_close(fitted(2.0), twice, rtol=0, atol=1e-7 * float(twice.norm()))
    assert (fitted(1.0) - twice).norm() > 1e-3 * twice.norm()
    assert (fitted(1e-9) - alone).norm() < 1e-3 * (twice - alone).norm()


def _weights(model):
    return torch.cat([torch.cat([layer.weight[0], layer.bias]) for layer in model.heads["energy"].nets.last]).detach()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_fit_goes_on(stop, tmp_path, monkeypatch):
    """The same weights to the bit, from the sums of the structures so far."""
    monkeypatch.setattr(linear, "PATIENCE", 0)
    frames, loss, count, rows = alloy(), EnergyLoss((9, 2.0), (9, 0.5), (9, 0.1)), [], checked_rows.weighted_rows
    options = dict(ridge=1e-6, batch_size=5, progress=False)

    def counting(*arguments):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        return rows(*arguments)

    whole = linear_model(frames)
    fit_linear(whole, frames, loss, **options)
    monkeypatch.setattr(checked_rows, "weighted_rows", counting)
    path = tmp_path / "a.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit_linear(linear_model(frames), frames, loss, **options, checkpoint=path)
    model = linear_model(frames)
    fit_linear(model, frames, loss, **options, checkpoint=path)
    assert len(count) == -(-len(frames) // 5) + 1
    for mine, theirs in zip(model.state_dict().values(), whole.state_dict().values()):
        assert torch.equal(mine, theirs)
    # one matrix and vector, whatever the number of structures
    n_weights = sum(p.numel() for layer in model.heads["energy"].nets.last for p in layer.parameters())
    assert path.stat().st_size < 8 * (n_weights**2 + n_weights) + 5000
    heavier = Frames([replace(frame, weight=2.0) for frame in frames])
    with pytest.raises(ValueError, match="a.checkpoint belongs to another run: frames"):
        fit_linear(linear_model(frames), heavier, loss, **options, checkpoint=path)
    with pytest.raises(ValueError, match="a.checkpoint belongs to another run: model"):
        fit_linear(linear_model(frames, seed=1), frames, loss, **options, checkpoint=path)


def test_large_structures_come_one_at_a_time(monkeypatch):
    """Batches have no more atoms than fit into memory; the solution does not change."""
    frames, loss, solutions, sizes = alloy(6), EnergyLoss((1, 1), (1, 1), (1, 1)), [], []
    rows_of = checked_rows.weighted_rows

    def counted_rows(model, batch, *arguments):
        sizes[-1].append(len(batch.system.cell))
        return rows_of(model, batch, *arguments)

    monkeypatch.setattr(checked_rows, "weighted_rows", counted_rows)
    for most in (200, 9, 1):
        monkeypatch.setattr(linear_energy, "ATOMS", most)
        sizes.append([])
        model = linear_model(frames)
        fit_linear(model, frames, loss, 1e-8, progress=False)
        solutions.append(torch.cat([part.flatten() for part in model.heads["energy"].nets.last.parameters()]))
    assert sizes == [[6], [2] * 3, [1] * 6]
    for solution in solutions[1:]:
        torch.testing.assert_close(solution, solutions[0], rtol=1e-6, atol=1e-8)


def test_sums_of_products():
    """Sums that are read between rows, in more than one block of the matrix, against a product; some rows are a view."""
    rows = torch.randn(40, 1100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums = RidgeRegression()
    sums.add(rows[:20], rows[:20, 0])
    torch.testing.assert_close(sums.normal, rows[:20].T @ rows[:20], rtol=0, atol=1e-13)
    for part in (rows[20:30], rows.T.contiguous().T[30:]):
        sums.add(part, part[:, 0])
    torch.testing.assert_close(sums.normal, rows.T @ rows, rtol=0, atol=1e-12)
    assert torch.equal(sums.normal, sums.normal.T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [3, 40])
def test_ridge_regression_is_least_squares(dtype, n):
    """Against the rows of the ridge stacked below, solved by singular values; the dual gives the same."""
    generator = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(n, m, dtype=dtype, generator=generator) for m in (7, 2))
    start = torch.randn(7, 2, dtype=dtype, generator=generator)
    primal, dual = RidgeRegression(), RidgeRegression(dual=True)
    for regression in (primal, dual):
        for part in torch.arange(n).split(9):
            regression.add(rows[part], targets[part])
    size = float(rows.abs().square().sum(dim=0).mean())
    assert primal.size == pytest.approx(size, rel=1e-12)

    def expected(ridge, start):
        root = torch.diag((size * ridge * torch.ones(7)).sqrt()).to(dtype)
        stacked, right = torch.cat([rows, root]), torch.cat([targets, root @ start])
        return torch.linalg.lstsq(stacked, right, driver="gelsd").solution

    ridge = torch.linspace(0.01, 1.0, 7, dtype=torch.float64)
    found = torch.linalg.solve(*copy.deepcopy(primal).equations(ridge=ridge, start=start))
    torch.testing.assert_close(found, expected(ridge, start), rtol=0, atol=1e-8)
    torch.testing.assert_close(dual.solve(ridge=0.01), expected(0.01, 0 * start), rtol=0, atol=1e-8)
    torch.testing.assert_close(primal.solve(ridge=0.01), expected(0.01, 0 * start), rtol=0, atol=1e-8)


def test_own_sizes():
    """Squares of columns, and no less than a twentieth of their root mean square."""
    found = own_sizes(torch.tensor([4.0, 0.0, 0.0, 0.0]).double())
    torch.testing.assert_close(found, torch.tensor([2.05**2, 0.05**2, 0.05**2, 0.05**2]).double())
