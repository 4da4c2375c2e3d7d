"""Error bars of linear energies whose data do not determine every weight: posteriors of 10^8 times what bars are made of."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.descriptors.ace import ACE, Order
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.model_file.upgrade import UPGRADES
from ase_mlelec.train.energy_rows import plain_rows
from ase_mlelec.train.error_bars import add_error_bars, arranged
from ase_mlelec.train.linear_energy import fit_by_choice
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.standardize import standardize
from ase_mlelec.uncertainty import gauge_of, inverse_factor, undetermined_shifts

RIDGE = 1e-13


def alloys(n):
    """Ordered cells of two copper and two gold atoms, strained and rattled, with energies and forces by EMT."""
    rng = np.random.default_rng(0)
    for k in range(n):
        atoms = bulk("Cu", "fcc", a=3.9, cubic=True)
        atoms.symbols[:2] = "Au"
        strain = rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = None
        yield Frame(atoms, labels, f"alloy-{k}", "train")


@pytest.fixture(scope="module")
def fitted():
    """(model, frames that were fitted, others, normal matrix with its ridge)"""
    frames = Frames(list(alloys(60)))
    orders = [Order(4.0, 6), Order(4.0, 2, 1)]
    model = Model(ACE(["Au", "Cu"], inner=2.0, orders=orders), {}).double()
    model.heads["energy"] = ScalarHead(2, model.descriptor.n_features, ()).double()
    for layer in model.heads["energy"].nets.last:
        torch.nn.init.zeros_(layer.weight)
    standardize(model, frames)
    seen, held, validation = (frames.take(list(range(*ends))) for ends in ((0, 44), (44, 54), (54, 60)))
    loss = EnergyLoss((1, 1), (1, 1), (0, 0))
    options = dict(held=[held], in_order=seen, ridge=RIDGE, progress=False)
    normal = fit_by_choice(model, seen, loss, **options).normal
    factor = arranged(inverse_factor(normal, 0.0), model.heads["energy"].nets)
    add_error_bars(model, seen, validation, factors={"energy": factor})
    return model, seen, validation, normal


def exact(model, frames, normal):
    """Standard deviations without scale, of structures with as many gold as copper atoms.

    The sum of the two constants alone counts, whose ridge is half that of each: with it in place of both nothing is
    undetermined but what has its own ridge.
    """
    batch = next(iter(Batches.for_model(model, frames, ("energy",)).all_batches(len(frames))))
    rows = plain_rows(model, batch, ["energy"])["energy"][0].detach().numpy()
    matrix = normal.numpy()[:-1, :-1].copy()
    matrix[-1, -1] -= RIDGE / (1 + RIDGE) * normal.diagonal().mean() / 2
    np.testing.assert_allclose(rows[:, -1], rows[:, -2])
    return np.sqrt(np.einsum("ip,pi->i", rows[:, :-1], np.linalg.solve(matrix, rows[:, :-1].T)))


def bars(model, frames):
    """Standard deviations of the energies by the calculator."""
    calc, found = DeepPotCalculator(model), []
    for frame in frames:
        calc.get_potential_energy(frame.atoms)
        found.append(calc.uncertainty["energy"])
    return np.array(found)


def test_bars_are_those_of_the_normal_matrix(fitted, tmp_path):
    model, _, frames, normal = fitted
    wanted = model.posteriors["energy"].scale("energy") * exact(model, frames, normal)
    model.save(tmp_path / "model.safetensors")
    for each in (model, load_model(tmp_path / "model.safetensors")):
        np.testing.assert_allclose(bars(each, frames), wanted, rtol=1e-6)


def test_what_data_do_not_determine_changes_no_bars(fitted, tmp_path):
    """Gold may be raised by any energy if copper is lowered by it: nothing changes at one stoichiometry."""
    model, seen, frames, normal = fitted
    factor = inverse_factor(normal, 0.0)
    raised = 1e8 * torch.randn(factor.shape[1], generator=torch.Generator().manual_seed(0)).to(factor)
    factor[-2] += raised
    factor[-1] -= raised
    other = copy.deepcopy(model)
    add_error_bars(other, seen, frames, factors={"energy": arranged(factor, other.heads["energy"].nets)})
    other.save(tmp_path / "model.safetensors")
    np.testing.assert_allclose(bars(load_model(tmp_path / "model.safetensors"), frames), bars(model, frames), rtol=1e-4)


def exact_of_atoms(model, frame, normal):
    """Standard deviations of the energies of atoms, without scale, where gold is not shifted against copper.

    The solutions are those of the normal equations in a basis without that shift.
    """
    head, batch = model.heads["energy"], Batches.for_model(model, [frame], ()).batch([0])
    inputs, species = head.last_inputs(model.descriptor(batch.system, batch.edges()))
    own = np.eye(2)[species.numpy()]
    weights = (own[:, :, None] * inputs.detach().numpy()[:, None]).reshape(len(own), -1)
    rows = float(head.nets.scale[0]) * np.concatenate([weights, own], axis=1)
    shift = np.zeros(len(normal))
    shift[-2:] = 1, -1
    basis = np.linalg.svd(shift[None])[2][1:].T
    solved = np.linalg.solve(basis.T @ normal.numpy() @ basis, basis.T @ rows.T)
    return np.sqrt(np.einsum("ip,pi->i", rows @ basis, solved))


def test_bars_of_atoms_leave_out_what_no_energy_determines(fitted, tmp_path):
    model, _, frames, normal = fitted
    model.save(tmp_path / "model.safetensors")
    for each in (model, load_model(tmp_path / "model.safetensors")):
        calc = DeepPotCalculator(each)
        for frame in frames:
            wanted = each.posteriors["energy"].scale("energy") * exact_of_atoms(model, frame, normal)
            np.testing.assert_allclose(calc.get_uncertainty("energies", atoms=frame.atoms), wanted, rtol=1e-4)


def test_bars_of_another_composition_keep_it(fitted):
    """How much an atom of gold instead of copper costs is unknown, and the bar of the energy says so."""
    model, _, frames, _ = fitted
    other = frames[0].atoms.copy()
    other.symbols[:] = ["Au", "Au", "Au", "Cu"]
    calc = DeepPotCalculator(model, on_extrapolation="ignore")
    assert calc.get_uncertainty("energy", atoms=other) > 1e3 * calc.get_uncertainty("energy", atoms=frames[0].atoms)


def test_former_files_find_it_by_its_size(fitted):
    model, _, _, _ = fitted
    state = {name: array for name, array in model.state_dict().items() if not name.endswith(".gauge")}
    _, found = UPGRADES[9]({}, state)
    wanted = model.posteriors["energy"].gauge
    assert wanted.norm() > 0
    np.testing.assert_allclose(found["posteriors.energy.gauge"], wanted, rtol=1e-6)


def test_undetermined_shifts():
    one = undetermined_shifts([[8, 16], [4, 8]])
    np.testing.assert_allclose(one @ one.T, np.outer([2, -1], [2, -1]) / 5, atol=1e-12)
    assert undetermined_shifts([[8, 16], [4, 9]]).shape == (2, 0)
    two = undetermined_shifts([[1, 1, 2], [2, 1, 2]])
    np.testing.assert_allclose(two @ two.T, np.outer([0, 2, -1], [0, 2, -1]) / 5, atol=1e-12)
    assert undetermined_shifts(np.zeros((0, 3))).shape == (3, 3)


@pytest.mark.parametrize("with_prior", [False, True])
def test_gauge_of_any_prior(with_prior):
    """Without it, the covariance is that of weights which are orthogonal to the shift in the metric of the prior."""
    generator = torch.Generator().manual_seed(0)
    shift, whole = np.array([[2.0], [-1.0]]), torch.tensor([0, 0, 2, 0, 0, -1]).double()
    rows = torch.randn(20, 6, generator=generator).double()
    rows -= torch.outer(rows @ whole, whole) / (whole @ whole)
    prior = torch.randn(6, 6, generator=generator).double()
    prior = prior @ prior.T if with_prior else torch.eye(6).double()
    normal = rows.T @ rows + 0.1 * prior
    inputs = torch.linalg.cholesky(torch.linalg.inv(normal))
    gauge = gauge_of(inputs, shift, prior=prior if with_prior else None)
    other = inputs.reshape(2, 3, -1).clone()
    other[:, -1] -= gauge
    other = other.flatten(0, 1)
    basis = torch.linalg.svd((prior @ whole)[None])[2][1:].T
    wanted = basis @ torch.linalg.inv(basis.T @ normal @ basis) @ basis.T
    np.testing.assert_allclose(other @ other.T, wanted, atol=1e-10)
