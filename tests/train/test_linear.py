"""Energies that are linear in the features: the closed form is the minimum, finds the truth, and makes whole models."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal
from small_data import make_frames

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.batches import Batches, Frame, Frames, join, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.testing import random_atoms
from ase_mlelec.train import linear, sums
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.linear import _weighted_rows, fit_linear
from ase_mlelec.train.losses import EnergyLoss, energy_and_derivatives
from ase_mlelec.train.recipe import train
from ase_mlelec.train.standardize import standardise


def alloy(n=12):
    """Cells of different sizes and compositions with noise for labels, some forces strong."""
    rng, frames = np.random.default_rng(0), []
    for k in range(n):
        formula = ("Cu2Au", "CuAu3", "Cu4")[k % 3]
        atoms = random_atoms(formula, cell=[4.0, 4.3, 4.6], seed=k)
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
    standardise(model, frames)
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
    labelled = copy.deepcopy(frames)
    batches = Batches.for_model(truth, frames, ("energy",))
    for k, frame in enumerate(labelled):
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
    seen = labelled.where(lambda frame: int(frame.name[1:]) < 25)
    fit_linear(model, seen, EnergyLoss((1, 1.0), (1, 1.0), (1, 1.0)), 1e-13, progress=False)
    unseen = Batches.for_model(model, labelled, ("energy",)).batch(range(25, 40))
    for one, two in zip(_flat(model, unseen), _flat(truth, unseen)):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def _flat(model, batch):
    energy, found = energy_and_derivatives(model, batch)
    return [energy.detach(), *(value.detach() for value in found.values())]


def test_coarse_labels_have_an_energy_of_their_own():
    """The weights are those of both energies, solved for as one system; almost no ridge leaves out what is coarse."""
    frames, loss = alloy(), EnergyLoss((1, 1.0), (1, 0.5), (0, 0))
    fine, coarse = frames.where(lambda f: int(f.name[1:]) < 5), frames.where(lambda f: int(f.name[1:]) >= 5)
    model = linear_model(frames)
    for layer in model.heads["energy"].nets.last:
        torch.nn.init.zeros_(layer.weight)
    start = copy.deepcopy(model.state_dict())

    before = _weights(model)

    def fitted(frames, *options):
        model.load_state_dict(start)
        fit_linear(model, frames, loss, 1e-6, *options, progress=False)
        return _weights(model) - before

    rows, rests = zip(
        *(
            _weighted_rows(model, Batches.for_model(model, part, loss.labels).batch(range(len(part))), loss)
            for part in (fine, coarse)
        )
    )
    size = float((rows[0] ** 2).sum(dim=0).mean())
    unit = torch.eye(rows[0].shape[1]).double()
    for ridge in (1e-3, 1.0):
        whole = torch.cat(
            [
                torch.cat([rows[0], 0 * rows[0]], dim=1),
                torch.cat([rows[1], rows[1]], dim=1),
                torch.cat([(1e-6 * size) ** 0.5 * unit, 0 * unit], dim=1),
                torch.cat([0 * unit, (ridge * size) ** 0.5 * unit], dim=1),
            ]
        )
        rest = torch.cat([*rests, torch.zeros(len(whole) - sum(map(len, rests))).double()])
        found = torch.linalg.lstsq(whole, rest[:, None], driver="gelsd").solution[: len(unit), 0]
        expected = torch.cat([found[:-2].reshape(2, -1), found[-2:, None]], dim=1).flatten()
        torch.testing.assert_close(fitted(fine, coarse, ridge), expected, rtol=0, atol=1e-6 * float(expected.norm()))
    alone = fitted(fine)
    assert (fitted(fine, coarse, 1e-15) - alone).norm() < 1e-3 * alone.norm()


def test_in_one_command(tmp_path):
    """From data to a calculator; fine-tuning goes on from the weights."""
    frames = make_frames(25)
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
    for one, two in zip(first.state_dict().values(), again.state_dict().values()):
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
    groups = fixed | {"energy": {"widths": [], "relevance": 3}}
    models = [train(parse_config(table | options, tmp_path), progress=False) for options in (drawn, fixed, groups)]
    first, second, third = (model.metadata["errors"]["test"]["forces_mae_meV_per_A"] for model in models)
    assert max(second, third) < first / 3 and second != third
    atoms = frames.frames[0].atoms
    atoms.calc = DeepPotCalculator(load_model(tmp_path / "cu.safetensors"), device="cpu", on_extrapolation="ignore")
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-5)
    for change, message in (
        (drawn, "power_spectrum. beside .descriptor.; leave one out"),
        ({"dipole": {"centers": ["Cu"]}}, "power_spectrum. for .dipole., but it has no"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_config(table | fixed | change, tmp_path)
    (tmp_path / "far").mkdir()
    alone = Frame(Atoms("Cu"), {"energy": 1.0, "forces": np.zeros((1, 3))})
    write_hdf5(tmp_path / "far" / "cu.h5", Frames([alone] * 3))
    with pytest.raises(ValueError, match="no atoms within 6 Å.*; give power_spectrum.inner"):
        train(parse_config(table | {"power_spectrum": {"cutoff": 4.0}}, tmp_path / "far"), progress=False)
    other = table | drawn | {"start": "cu.safetensors", "output": {"model": "other.safetensors"}}
    with pytest.raises(ValueError, match="start: got .* of the energy, the model that training starts from has"):
        train(parse_config(other, tmp_path), progress=False)


def test_far_structures_count_as_told():
    """Twice as much: as if each of them were there twice; a billionth: next to nothing."""
    frames, loss = alloy(), EnergyLoss((1, 1.0), (1, 0.5), (0, 0))
    near, far = frames.where(lambda f: int(f.name[1:]) < 7), frames.where(lambda f: int(f.name[1:]) >= 7)
    model = linear_model(frames)
    start = copy.deepcopy(model.state_dict())

    def fitted(far, weight):
        model.load_state_dict(start)
        fit_linear(model, near, loss, 1e-4, far=far, far_weight=weight, progress=False)
        return _weights(model)

    alone, twice = fitted(None, 1.0), fitted(join([far, far]), 1.0)
    torch.testing.assert_close(fitted(far, 2.0), twice, rtol=0, atol=1e-7 * float(twice.norm()))
    assert (fitted(far, 1.0) - twice).norm() > 1e-3 * twice.norm()
    assert (fitted(far, 1e-9) - alone).norm() < 1e-3 * (twice - alone).norm()


def _weights(model):
    return torch.cat([torch.cat([layer.weight[0], layer.bias]) for layer in model.heads["energy"].nets.last]).detach()


def test_ridges_by_groups_are_the_most_probable(monkeypatch):
    """Of labels drawn from groups of weights of unlike size: their Gaussian density is stationary in every ridge."""
    frames, loss = alloy(16), EnergyLoss((1, 1.0), (1, 1.0), (0, 0))
    model = linear_model(frames)
    n = model.descriptor.n_features
    monkeypatch.setattr(DeepPotSE, "feature_groups", lambda self: torch.arange(n) % 3)
    groups = linear._groups(model)
    assert len(groups) == 2 * n and groups[:n].tolist() == (groups[n:] - 3).tolist() == [k % 3 for k in range(n)]
    for layer in model.heads["energy"].nets.last:
        torch.nn.init.zeros_(layer.weight)
    rows, _ = _weighted_rows(model, Batches.for_model(model, frames, loss.labels).batch(range(16)), loss)
    rng = np.random.default_rng(0)
    truth = np.append(np.array([0.1, 1.0, 10.0])[groups % 3] * rng.normal(size=2 * n), [0, 0])
    labels = rows.numpy() @ truth + 0.01 * rng.normal(size=len(rows))
    normal, right = rows.T @ rows, rows.T @ torch.as_tensor(labels)
    ridges = torch.full_like(right, 1e-4)
    for _ in range(100):
        ridges[:-2] = linear._more_probable(normal, right, ridges, groups, np.log(1e-4))
    assert (ridges[-2:] == 1e-4).all()  # of the constants
    own = np.array([float(ridges[:-2][groups == k][0]) for k in range(6)])
    assert (own[[0, 3]] > 3 * own[[1, 4]]).all() and (own[[1, 4]] > 3 * own[[2, 5]]).all()

    def log_density(ridges, noise):
        prior = rows.numpy() / np.append(ridges[groups], [1e-4] * 2) @ rows.numpy().T
        return multivariate_normal(cov=noise * (np.eye(len(rows)) + prior)).logpdf(labels)

    def slopes(ridges, noise):
        steps = np.exp(1e-3 * np.eye(6))
        found = [log_density(ridges * step, noise) - log_density(ridges / step, noise) for step in steps]
        return np.array(found) / 2e-3

    noise = np.exp(minimize_scalar(lambda x: np.abs(slopes(own, np.exp(x))).max(), bracket=(-11, -8)).x)
    assert np.abs(slopes(own, noise)).max() < 0.01 < 1 < np.abs(slopes(np.full(6, 1e-4), noise)).max()


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_interrupted_fit_goes_on(stop, tmp_path, monkeypatch):
    """The same weights to the bit, from the sums of the structures so far; in the first, second and third data set."""
    monkeypatch.setattr(sums, "PATIENCE", 0)
    frames, loss, count, rows = alloy(), EnergyLoss((9, 2.0), (9, 0.5), (9, 0.1)), [], linear._weighted_rows
    options = dict(
        ridge=1e-6,
        far=frames.where(lambda frame: frame.name < "x5"),
        far_weight=3.0,
        coarse_ridge=0.1,
        coarse=frames.where(lambda frame: frame.name > "x5"),
        batch_size=5,
        progress=False,
    )

    def counting(*arguments):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        return rows(*arguments)

    whole = linear_model(frames)
    fit_linear(whole, frames, loss, **options)
    monkeypatch.setattr(linear, "_weighted_rows", counting)
    path = tmp_path / "a.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit_linear(linear_model(frames), frames, loss, **options, checkpoint=path)
    model = linear_model(frames)
    fit_linear(model, frames, loss, **options, checkpoint=path)
    n_batches = sum(-(-len(part) // 5) for part in (frames, options["far"], options["coarse"]))
    assert len(count) == n_batches + 1
    for mine, theirs in zip(model.state_dict().values(), whole.state_dict().values()):
        assert torch.equal(mine, theirs)
    # two matrices and vectors at most, whatever the number of structures
    n_weights = sum(p.numel() for layer in model.heads["energy"].nets.last for p in layer.parameters())
    assert path.stat().st_size < 2 * 8 * (n_weights**2 + n_weights) + 5000
    with pytest.raises(ValueError, match="a.checkpoint belongs to another run: far_weight 3.0, this one 2.0"):
        fit_linear(linear_model(frames), frames, loss, **options | {"far_weight": 2.0}, checkpoint=path)
    with pytest.raises(ValueError, match="a.checkpoint belongs to another run: model"):
        fit_linear(linear_model(frames, seed=1), frames, loss, **options, checkpoint=path)
