"""Closed form of spectra, vectors and tensors: against normal equations of NumPy, with masks, in one command."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from safetensors.torch import load_file
from small_data import ENERGIES, make_frames, make_wannier_frames

from ase_mlelec import DeepDOSCalculator, DeepWannierCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.descriptors import ACE, DeepPotSE
from ase_mlelec.heads import SpectrumHead, TensorHead, VectorHead
from ase_mlelec.model import Model
from ase_mlelec.quantities import LOSSES, QUANTITIES
from ase_mlelec.train.closed_form import fit_closed_form
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.drawn_nets import DrawnNet, short
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.defaults import centers_of, n_drawn, near, settled
from ase_mlelec.train.standardize import standardize

K = 9  # drawn functions
KINDS = {"dos": SpectrumHead, "dipole": VectorHead, "polarizability": TensorHead}


def data_of(name):
    """Six structures: with labels of atoms and of sums, of sums alone, of atoms alone; some, or labels, weigh less."""
    frames = make_frames(6) if name == "dos" else make_wannier_frames(6)
    row = QUANTITIES[name]
    for k, frame in enumerate(frames):
        kept = (row.atomic, row.total) if k < 2 else (row.total,) if k < 4 else (row.atomic,)
        frame.labels = {label: frame.labels[label] for label in kept}
    frames.frames[1].weight = frames.frames[3].weight = 0.5
    frames.frames[1].label_weights = {row.atomic: 0.3, row.total: 7.0}  # the sum is that of the labels of atoms
    frames.frames[2].label_weights = {row.atomic: 7.0, row.total: 0.2}
    return frames


def model_of(name, frames, seed=0):
    species = sorted({symbol for frame in frames for symbol in frame.atoms.symbols})
    torch.manual_seed(seed)
    descriptor = DeepPotSE(species, 4.0, 1.0, (5,), 3, n_basis=5, l_max=2)
    extra = {"energies": ENERGIES} if name == "dos" else {"n_rows": descriptor.n_frame, "centers": [0]}
    head = KINDS[name](len(species), descriptor.n_features, **extra, widths=(K,))
    model = Model(descriptor, {name: head}).double()
    for layer in head.nets.last:
        torch.nn.init.zeros_(layer.weight)
    standardize(model, frames)
    return model


def values_of(model, name, batch):
    with torch.no_grad():
        return batch.predict(model, name).reshape(len(batch.system.numbers), -1).numpy()


@pytest.mark.parametrize("name", KINDS)
def test_columns_are_derivatives_of_the_prediction(name):
    frames = make_frames(3) if name == "dos" else make_wannier_frames(3)
    model = model_of(name, frames)
    batches = Batches.for_model(model, frames, ())
    drawn, batch = DrawnNet(model, name, batches, 0), batches.batch(range(3))
    columns = drawn.columns(batch).numpy()
    before = values_of(model, name, batch)
    n_outputs = len(ENERGIES) if name == "dos" else 1
    rng = np.random.default_rng(0)
    for p in (0, K - 1, columns.shape[2] - 1):  # functions, and a constant
        unknowns = np.zeros((columns.shape[2], n_outputs))
        unknowns[p] = rng.normal(size=n_outputs)
        drawn.set_last(torch.tensor(unknowns))
        change = values_of(model, name, batch) - before
        expected = columns[:, 0, [p]] * unknowns[p] * float(drawn.scale_of_targets()[0]) if name == "dos" else (
            columns[:, :, p] * unknowns[p]
        )  # fmt: skip
        np.testing.assert_allclose(change, expected, atol=1e-12)
        assert np.abs(expected).max() > 1e-6


def by_numpy(model, name, frames, ridge, weights, drawn_for=None):
    """Prediction of all atoms by normal equations, whose rows are built structure by structure from the labels."""
    row, head = QUANTITIES[name], model.heads[name]
    for layer in head.nets.last:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    batches = Batches.for_model(model, frames, row.labels)
    drawn = DrawnNet(model, name, Batches.for_model(model, drawn_for or frames, row.labels), 0)
    rows, targets = ([], []), ([], [])
    for k, frame in enumerate(frames):
        batch = batches.batch([k])
        columns, start = drawn.columns(batch).numpy(), values_of(model, name, batch)
        labels = {label: np.asarray(value) for label, value in frame.labels.items()}
        if row.symmetric:
            labels = {label: (value + np.swapaxes(value, -1, -2)) / 2 for label, value in labels.items()}
        center = np.ones(len(frame.atoms), bool) if name == "dos" else frame.atoms.numbers == 8
        weight = frame.weight * frame.label_weights.get(row.atomic if row.atomic in labels else row.total, 1.0)
        if row.atomic in labels:
            value = labels[row.atomic].reshape(len(center), -1)
            rows[0].append(np.sqrt(weight) * columns[center])
            targets[0].append(np.sqrt(weight) * (value - start)[center])
            total = value.sum(axis=0)
        else:
            total = labels[row.total].ravel()
        rows[1].append(np.sqrt(weight) * columns.sum(axis=0)[None] / center.sum())
        targets[1].append(np.sqrt(weight) * (total - start.sum(axis=0))[None] / center.sum())
    scale = float(drawn.scale_of_targets()[0]) if name == "dos" else 1.0
    normal, right = 0, 0
    for a, b, weight in zip(rows, targets, weights):
        a, b = np.concatenate(a), np.concatenate(b) / scale
        a = a.reshape(-1, a.shape[2])
        b = b if name == "dos" else b.reshape(-1, 1)
        normal, right = normal + weight / b.size * a.T @ a, right + weight / b.size * a.T @ b
    normal = normal + ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
    solution = torch.tensor(np.linalg.solve(normal, right))
    drawn.set_last(solution.float() if name == "dos" else solution)
    return values_of(model, name, batches.batch(range(len(frames))))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("weights", [None, (1.0, 2.0), (0.0, 1.0)])
def test_fit_is_that_of_numpy(name, weights):
    frames = data_of(name)
    loss = LOSSES[name](*(weights or (1.0, 0.0)))
    fits = []
    for _ in range(2):
        model = model_of(name, frames)
        chosen = fit_closed_form(model, frames, loss, weights_by_data=weights is None, batch_size=2).about
        fits.append(model)
    batch = Batches.for_model(model, frames, ()).batch(range(len(frames)))
    assert chosen["drawn"] == K and len(chosen["cross_validation"]) == 2
    used = tuple(chosen["weights"].values())
    assert used == weights if weights else used[1] > 0  # some structures have sums alone
    found = [values_of(each, name, batch) for each in fits]
    assert (found[0] == found[1]).all()  # to the last bit
    expected = by_numpy(copy.deepcopy(model), name, frames, chosen["ridge"], used)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_short_numbers():
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3
    found = short(numbers).double()
    assert float(((found - numbers) / numbers).abs().max()) <= 0.25
    assert {float(each) for each in torch.frexp(found)[0].abs()} == {0.5, 0.75}
    assert torch.equal(short(found), short(numbers)) and float(short(torch.zeros(1))) == 0


def test_drawn_layers_are_stored_in_few_bits(tmp_path):
    frames = data_of("dos")
    model = model_of("dos", frames)
    fit_closed_form(model, frames, LOSSES["dos"](1.0, 1.0), weights_by_data=False)
    model.save(tmp_path / "m.safetensors")
    stored = load_file(tmp_path / "m.safetensors")
    for part, dtype in ((".hidden.", torch.bfloat16), (".last.", torch.float32)):
        assert {name for name in stored if part in name} == {
            name for name, each in stored.items() if each.dtype == dtype
        }
    again = load_model(tmp_path / "m.safetensors")
    for name, array in model.state_dict().items():
        assert torch.equal(array, again.state_dict()[name]) and array.dtype == again.state_dict()[name].dtype
    trained = model.heads["dos"].nets.hidden[0][0].weight
    for change in (1e-5, 1e-12):  # no longer eight bits; no longer single precision
        trained.data.mul_(1 + change)
        model.save(tmp_path / "m.safetensors")
        assert torch.equal(load_model(tmp_path / "m.safetensors").heads["dos"].nets.hidden[0][0].weight, trained)


@pytest.mark.parametrize("name", KINDS)
def test_structures_held_out_are_fitted_later(name):
    frames = data_of(name)
    loss = LOSSES[name](1.0, 1.0)
    first, rest = (frames.take(part) for part in ((0, 2, 4), (1, 3, 5)))
    model = model_of(name, first)
    fitted = fit_closed_form(model, first, loss, later=rest, weights_by_data=False)
    batch = Batches.for_model(model, frames, ()).batch(range(len(frames)))
    before = values_of(model, name, batch)
    fitted.take_in()
    expected = by_numpy(copy.deepcopy(model), name, frames, fitted.about["ridge"], (1.0, 1.0), drawn_for=first)
    found = values_of(model, name, batch)
    assert np.abs(found - before).max() > 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_labels_of_sums_alone():
    frames = make_wannier_frames(6)
    for frame in frames:
        frame.labels = {"polarizability": frame.labels["polarizability"]}
    chosen = fit_closed_form(model_of("polarizability", frames), frames, LOSSES["polarizability"](0.0, 1.0)).about
    assert chosen["weights"] == {"total": 1.0} and list(chosen["cross_validation"]) == ["total_A3_per_center"]


def configuration(folder, **sections):
    return parse_config({"data": {"files": ["d.h5"]}, "output": {"model": "m.safetensors"}} | sections, folder)


@pytest.mark.parametrize(
    "sections", [{"dos": {}}, {"dos": {"drawn": 150, "square_root": False}, "power_spectrum": {"cutoff": 4.0}}], ids=str
)
@pytest.mark.slow
def test_spectra_without_a_setting(sections, tmp_path, capfd):
    """ACE invariants and a net that is drawn; errors on structures never seen are as large as cross-validation says."""
    frames = make_frames(60)
    write_hdf5(tmp_path / "d.h5", frames)
    model = train(configuration(tmp_path, **sections))
    assert "[dos] closed form with" in capfd.readouterr().err
    assert isinstance(model.descriptor, ACE)
    errors, chosen = model.metadata["errors"]["test"], model.metadata["training"]["closed_form"]["dos"]
    assert errors["ados_rmse_over_std"] < 0.3
    if sections["dos"].get("square_root") is False:
        ratio = errors["ados_rmse_states_per_eV"] / chosen["cross_validation"]["ados_per_eV"]
        assert 1 / 3 < ratio < 3
    calculator = DeepDOSCalculator(load_model(tmp_path / "m.safetensors"), device="cpu", on_extrapolation="ignore")
    atoms = frames.frames[4].atoms
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    np.testing.assert_allclose(calculator.get_ados(turned), calculator.get_ados(atoms), atol=1e-9)


@pytest.mark.slow
def test_vectors_and_tensors_without_a_setting(tmp_path):
    frames = make_wannier_frames(40)
    write_hdf5(tmp_path / "d.h5", frames)
    model = train(configuration(tmp_path, dipole={}, polarizability={}), progress=False)
    assert isinstance(model.descriptor, DeepPotSE) and model.descriptor.n_products
    assert [model.species[k] for k in model.heads["dipole"].centers] == ["O"]
    assert model.metadata["electrons_per_centre"] == {"O": 8.0}
    found = model.metadata["errors"]["test"]
    spread = {
        name: np.std(np.concatenate([frame.labels[name][frame.atoms.numbers == 8] for frame in frames]))
        for name in ("atomic_dipole", "atomic_polarizability")
    }
    assert found["atomic_dipole_rmse_A"] < 0.3 * spread["atomic_dipole"]
    assert found["atomic_polarizability_rmse_A3"] < 0.3 * spread["atomic_polarizability"]
    calculator = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
    atoms = frames.frames[4].atoms
    turned = atoms.copy()
    turned.rotate(90, "z", rotate_cell=True)
    rotation = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    tensors = [calculator.get_polarizability(atoms=each) for each in (atoms, turned)]
    np.testing.assert_allclose(tensors[1], rotation @ tensors[0] @ rotation.T, atol=1e-9)


def test_settings_of_descent_keep_gradient_descent(tmp_path):
    write_hdf5(tmp_path / "d.h5", make_frames(4))
    model = train(configuration(tmp_path, dos={"steps": 2}), progress=False)
    assert isinstance(model.descriptor, DeepPotSE) and model.heads["dos"].widths == (128, 128)
    assert "closed_form" not in model.metadata["training"] and (tmp_path / "m.dos.csv").exists()


def test_what_the_data_decide(tmp_path):
    frames = make_wannier_frames(3)
    assert settled(configuration(tmp_path, dipole={}), frames).dipole.centers == ("O",)
    given = configuration(tmp_path, dipole={}, power_spectrum={"cutoff": 4.0}, energy={"widths": []})
    assert settled(given, frames).electronic.cutoff == 4.0
    given = configuration(tmp_path, dipole={"centers": ["Si"]}, descriptor={})
    assert settled(given, frames) is given
    given = configuration(tmp_path, dos={}, descriptor={"cutoff": 4.0})
    assert settled(given, frames) is given
    for frame in frames:
        frame.labels = {name: value for name, value in frame.labels.items() if not name.startswith("atomic")}
    assert centers_of(frames, "polarizability", "d.h5") == ("O", "Si")
    frames.attributes["electrons_per_centre"] = {"O": 8.0, "N": 8.0}
    assert centers_of(frames, "dipole", "d.h5") == ("O",)  # what the data say of electrons
    frames.attributes.clear()
    with pytest.raises(ValueError, match="d.h5: dipole.centers: none of the 3 frames .*give it, such as"):
        settled(configuration(tmp_path, dipole={}), frames)
    few, many = replace(frames), Frames(frames.frames * 200)
    assert n_drawn(few, "dipole", 1, 7, None) < n_drawn(many, "dipole", 1, 7, None)
    assert n_drawn(few, "dipole", 1, 7, 14) == 15 and n_drawn(few, "dipole", 90, 7, None) == 64


def test_cutoff_by_the_density():
    def cutoff(atoms):
        return near(Frames([Frame(atoms)]))

    copper = bulk("Cu", cubic=True, a=3.61)  # 78 neighbors within 6 Å: the shells have 12, 6, 24, 12, 24 atoms
    assert cutoff(copper) == pytest.approx(6 * (45 / 78) ** (1 / 3), abs=0.05)
    assert cutoff(bulk("Cu", cubic=True, a=2.8)) == 4.5
    assert cutoff(Atoms("Cu")) == 6.0
