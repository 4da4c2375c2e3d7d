"""Born charges as labels: against finite differences, a calculator's own charges, and a law whose charges are known."""

import copy
import tomllib
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.geometry import get_distances
from small_data import make_wannier_frames

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames, read_frames, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import VectorHead
from ase_mlelec.model import Model
from ase_mlelec.survey.dipoles import charges_like
from ase_mlelec.train.closed_form import fit_closed_form
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.dipoles import told_of_sum_rule, with_sums
from ase_mlelec.train.drawn_nets import DrawnNet
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.fit import fit
from ase_mlelec.train.losses import VectorLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.slopes import slope_columns
from ase_mlelec.train.spreads import spread_of, with_born
from ase_mlelec.train.standardize import standardize
from ase_mlelec_entry_points.cli.main import main

K = 6  # drawn functions
KNOWN = {"valence_charges": {"Si": 4.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}
NET = {"Si": 4.0, "O": -2.0}


def model_of(frames, *, widths=(K,), seed=0):
    torch.manual_seed(seed)
    descriptor = DeepPotSE(["O", "Si"], 4.0, 1.0, (5,), 3, n_basis=5, l_max=2, n_products=2)
    head = VectorHead(2, descriptor.n_features, descriptor.n_frame, [0], widths)
    model = Model(descriptor, {"dipole": head}).double()
    model.metadata = dict(KNOWN)
    for layer in head.nets.last:
        torch.nn.init.zeros_(layer.weight)
    standardize(model, frames)
    return model


def born_of(model, frames):
    calculator = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
    return [calculator.get_born_charges(frame.atoms).copy() for frame in frames]


def labeled(frames, columns):
    """Frames with the labels of ``columns``, dict by label of a list."""
    return replace(
        frames,
        frames=[
            replace(frame, labels={name: values[k] for name, values in columns.items() if values[k] is not None})
            for k, frame in enumerate(frames)
        ],
    )


@pytest.fixture(scope="module")
def truth():
    """Structures, a model with drawn functions and a random last layer, and its charges, dipoles and centroids."""
    frames = make_wannier_frames(6)
    model = model_of(frames)
    drawn = DrawnNet(model, "dipole", Batches.for_model(model, frames, ()), 0)
    n_unknowns = K + model.descriptor.n_frame
    drawn.set_last(torch.from_numpy(np.random.default_rng(0).normal(size=(n_unknowns, 1))))
    calculator = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
    columns = {"born_charges": born_of(model, frames)}
    columns["dipole"] = [calculator.get_property("dipole", frame.atoms).copy() for frame in frames]
    oxygen = frames[0].atoms.numbers == 8
    columns["atomic_dipole"] = [np.zeros((len(oxygen), 3)) for _ in frames]
    for values, frame in zip(columns["atomic_dipole"], frames):
        values[oxygen] = calculator.get_centroids(frame.atoms) - frame.atoms.positions[oxygen]
    return frames, model, columns


def test_columns_are_finite_differences_of_those_of_sums(truth):
    frames, model, _ = truth
    model = copy.deepcopy(model)
    drawn = DrawnNet(model, "dipole", Batches.for_model(model, frames, ()), 0)
    pair = frames.take([0, 1])
    columns, of_bias = slope_columns(drawn, Batches.for_model(model, pair, ()).batch([0, 1]))
    h, atom, axis = 1e-4, 7, 1  # an atom of the second structure

    def sums(step):
        moved = copy.deepcopy(pair)
        moved.frames[1].atoms.positions[atom - 6, axis] += step
        own = drawn.columns(Batches.for_model(model, moved, ()).batch([0, 1]))
        return own.sum(dim=0)

    expected = (8 * (sums(h) - sums(-h)) - (sums(2 * h) - sums(-2 * h))) / (12 * h)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(columns[atom, :, axis], expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(columns.sum(dim=0), torch.zeros_like(columns[0]), rtol=0, atol=1e-11)  # sum rule
    nets = model.heads["dipole"].nets
    of_constants = columns[..., K:] / nets.scale @ nets.bias[0]
    torch.testing.assert_close(of_bias, of_constants)


MIXTURES = {
    "charges alone": {"born_charges": range(6)},
    "charges and dipoles": {"born_charges": range(6), "dipole": range(6)},
    "each its own": {"born_charges": (0, 3), "dipole": (1, 4), "atomic_dipole": (2, 5)},
}


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_charges_of_a_model_are_recovered(truth, mixture):
    """The functions are those of the model, so that the fit is exact but for the ridge."""
    frames, model, columns = truth
    chosen = {name: [columns[name][k] if k in having else None for k in range(6)] for name, having in mixture.items()}
    known = with_sums(labeled(frames, chosen), KNOWN)
    found, told = copy.deepcopy(model), []
    loss = VectorLoss(float("atomic_dipole" in mixture), float("dipole" in mixture), 1.0)
    about = fit_closed_form(found, known, loss, tell=told.append).about
    assert "born" in about["weights"] and len(about["weights"]) == len(mixture)
    assert not any("WARNING" in line for line in told)
    size = np.abs(columns["born_charges"]).max()
    for own, expected in zip(born_of(found, frames), columns["born_charges"]):
        np.testing.assert_allclose(own, expected, atol=1e-4 * size)


def test_weights_of_charges(truth):
    """The weight of a label of all that a structure has is that of the structure; of another label it has no effect."""
    frames, model, columns = truth
    given = labeled(frames, {"born_charges": [1.5**k * each for k, each in enumerate(columns["born_charges"])]})

    def found(weight, **labels):
        given.frames[2].weight, given.frames[2].label_weights = weight, labels
        known, own = with_sums(given, KNOWN), copy.deepcopy(model)
        fit_closed_form(own, known, VectorLoss(0.0, 0.0, 1.0))
        return born_of(own, frames.take([2]))[0]

    expected = found(0.1)
    np.testing.assert_allclose(found(1.0, born_charges=0.1), expected, atol=1e-9)
    assert np.abs(found(1.0, dipole=0.1) - expected).max() > 1e-3


def test_swapped_indices_are_noticed(truth):
    frames, model, columns = truth
    swapped = labeled(frames, {"born_charges": [np.swapaxes(each, 1, 2) for each in columns["born_charges"]]})
    known, told = with_sums(swapped, KNOWN), []
    fit_closed_form(copy.deepcopy(model), known, VectorLoss(0.0, 0.0, 1.0), tell=told.append)
    assert 'set born_charges_order = "displacement, dipole" in [data.keys]' in told[-1]


def test_errors_are_those_of_the_calculator(truth):
    frames, model, columns = truth
    noise = np.random.default_rng(1).normal(0, 0.1, np.shape(columns["born_charges"]))
    found = errors(model, labeled(frames, {"born_charges": list(np.array(columns["born_charges"]) + noise)}))
    assert found == {"born_charges_rmse_e": pytest.approx(np.sqrt(np.mean(noise**2)))}


def test_gradient_of_the_loss_is_that_of_the_columns(truth):
    frames, model, columns = truth
    model = copy.deepcopy(model)
    shifted = [1.1 * each for each in columns["born_charges"]]
    known = with_sums(labeled(frames, {"born_charges": shifted}), KNOWN)
    batches = Batches.for_model(model, known, ("summed_dipole_slopes",))
    batch = batches.batch(range(3))
    loss, squares = VectorLoss(0.0, 0.0, born=2.0)(model, batch, 0.0)
    nets = model.heads["dipole"].nets
    (gradient,) = torch.autograd.grad(loss, nets.last[0].bias)
    drawn = DrawnNet(model, "dipole", batches, 0)
    rows = slope_columns(drawn, batch)[0][..., K:].flatten(0, 2)
    with torch.no_grad():
        own = torch.cat([torch.from_numpy(each) for each in born_of(model, frames.take([0, 1, 2]))])
    rest = (torch.from_numpy(np.concatenate(shifted[:3])) - own).flatten() / 8  # the charge of a centroid is -8 e
    assert float(squares["slope"]) == pytest.approx(float(rest.square().mean()), rel=1e-9)
    torch.testing.assert_close(gradient, 2.0 * 2 * rows.T @ rest / len(rest), rtol=1e-7, atol=1e-10)


def test_descent_learns_charges(truth):
    frames, _, columns = truth
    known = with_sums(labeled(frames, {"born_charges": columns["born_charges"]}), KNOWN)
    model = model_of(known, widths=(8,))
    before = errors(model, known)["born_charges_rmse_e"]
    fit(model, known, VectorLoss(0.0, 0.0, born=1.0), steps=40, learning_rate=(2e-2, 1e-3), progress=False)
    assert errors(model, known)["born_charges_rmse_e"] < 0.7 * before


def law_of(atoms):
    """Born charges of the law of ``small_data.wannier_labels``, d = sum_j exp(-r^2/2) r, in closed form."""
    charges = np.array([NET[symbol] for symbol in atoms.symbols])[:, None, None] * np.eye(3)
    silicon = np.flatnonzero(atoms.numbers == 14)
    for i in np.flatnonzero(atoms.numbers == 8):
        apart = get_distances(atoms.positions[i], atoms.positions[silicon], cell=atoms.cell, pbc=True)[0][0]
        for j, vector in zip(silicon, apart):
            slope = np.exp(-vector @ vector / 2) * (np.eye(3) - np.outer(vector, vector))
            charges[j] -= 8 * slope
            charges[i] += 8 * slope
    return charges


def configuration(folder, text):
    head = '[data]\nfiles = ["d.extxyz"]\n[output]\nmodel = "m.safetensors"\n'
    return parse_config(tomllib.loads(head + text), folder)


@pytest.mark.parametrize("descent", [False, True], ids=["closed form", "descent"])
@pytest.mark.slow
def test_from_a_file_to_a_model(tmp_path, capfd, descent):
    """Born charges alone, nine columns in extxyz under the name of a reference; the sum rule is reported."""
    frames = make_wannier_frames(20)
    images = []
    for frame in frames:
        images.append(frame.atoms.copy())
        images[-1].arrays["REF_bec"] = law_of(frame.atoms).reshape(-1, 9) + 1e-3
        images[-1].info["group"] = frame.group
    ase.io.write(tmp_path / "d.extxyz", images)
    settings = "[dipole]\nions = {Si = 4, O = 6}\nelectrons = {O = 8}\n"
    settings += "widths = [12]\nsteps = 60\nlearning_rate = [0.02, 0.002]\n" if descent else "drawn = 100\n"
    settings += "[descriptor]\ncutoff = 4.0\nwidths = [6]\nn_axis = 3\nn_products = 2\n"
    with pytest.warns(UserWarning, match="read as born_charges: REF_bec"):
        model = train(configuration(tmp_path, settings))
    assert "elements of their sum are 0.006 e (root mean square), at most 0.006 e" in capfd.readouterr().err
    test = [frame for frame in frames if frame.group == "test"]
    spread = np.std([law_of(frame.atoms) - np.array([NET[s] for s in frame.atoms.symbols])[:, None, None] * np.eye(3)
                     for frame in test])  # fmt: skip
    found = model.metadata["errors"]["test"]
    assert set(found) == {"born_charges_rmse_e"}
    assert found["born_charges_rmse_e"] < (0.3 if descent else 0.5) * spread
    expected = np.array([law_of(frame.atoms) for frame in test])
    actual = np.sqrt(np.mean((np.array(born_of(model, test)) - expected - 1e-3) ** 2))
    assert found["born_charges_rmse_e"] == pytest.approx(actual, rel=1e-5)


def image_with(values, key="born_charges"):
    atoms = make_wannier_frames(1)[0].atoms
    atoms.arrays[key] = values
    return atoms


@pytest.mark.parametrize("key", ["born_charges", "bec", "BEC", "born_effective_charges"])
def test_names_shapes_and_order(tmp_path, key):
    charges = law_of(make_wannier_frames(1)[0].atoms)
    charges[0, 0, 1] += 1.0
    ase.io.write(tmp_path / "a.extxyz", image_with(charges.reshape(-1, 9), key))
    np.testing.assert_allclose(read_frames(tmp_path / "a.extxyz")[0].labels["born_charges"], charges, atol=1e-7)
    for keys in ({"born_charges_order": "displacement, dipole"}, {"born_charges_order": "dipole, displacement"}):
        found = read_frames(tmp_path / "a.extxyz", keys=keys)[0].labels["born_charges"]
        first = keys["born_charges_order"].startswith("displacement")
        np.testing.assert_allclose(found, np.swapaxes(charges, 1, 2) if first else charges, atol=1e-7)
    write_hdf5(tmp_path / "a.h5", read_frames(tmp_path / "a.extxyz"))
    assert read_frames(tmp_path / "a.h5").fingerprint() == read_frames(tmp_path / "a.extxyz").fingerprint()


def test_wrong_shapes_and_orders(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", image_with(np.ones((6, 3))))
    with pytest.raises(ValueError, match=r"a.extxyz: .*'born_charges' has shape \(6, 3\), needed \(6, 3, 3\)"):
        read_frames(tmp_path / "a.extxyz")
    with pytest.raises(ValueError, match="got born_charges_order = 'zyx', need 'dipole, displacement'"):
        read_frames(tmp_path / "a.extxyz", keys={"born_charges_order": "zyx"})


def test_sum_rule_of_charged_structures():
    """What is reported is the distance from the charge of the structure, here 2 e."""
    frames = make_wannier_frames(1)
    charges = law_of(frames[0].atoms) + np.eye(3) * 2 / 6
    charges[2, 0, 1] += 0.25
    ions = {"valence_charges": {"Si": 4.5, "O": 6.25}, "electrons_per_centre": {"O": 8.0}}
    known = with_sums(labeled(frames, {"born_charges": [charges]}), ions)
    assert "sum are 0.083 e (root mean square), at most 0.25 e" in told_of_sum_rule(known, ions)
    assert told_of_sum_rule(frames, ions) == ""


def test_charges_are_needed(tmp_path):
    atoms = image_with(np.zeros((6, 9)))
    ase.io.write(tmp_path / "d.extxyz", [atoms] * 3)
    with pytest.raises(ValueError, match="dipoles and Born charges need the charges of ions"):
        train(configuration(tmp_path, '[dipole]\ncenters = ["O"]\n'), progress=False)


def test_weight_in_units_of_the_spreads(truth):
    """A weight of one makes errors as large as the spreads count alike; it is chosen where the data have Born charges."""
    frames, _, columns = truth
    config = configuration("", "[dipole]\nions = {Si = 4, O = 6}\nelectrons = {O = 8}\n")
    both = with_sums(labeled(frames, {name: columns[name] for name in ("born_charges", "atomic_dipole")}), KNOWN)
    row = next(row for row in config.wanted if row.name == "dipole")
    options = with_born(config.dipole, row, both)
    vectors, slopes = (
        spread_of([(f.atoms.numbers, f.labels[name]) for f in both], name)
        for name in ("atomic_dipole", "summed_dipole_slopes")
    )
    assert options.born * slopes**2 == pytest.approx(vectors**2)
    assert with_born(config.dipole, row, Frames(list(frames))).born == 0
    nothing = configuration("", "[dipole]\natomic = 0\ntotal = 0\n").dipole
    assert with_born(nothing, row, both).born > 0
    with pytest.raises(ValueError, match="atomic and total are 0, and none of the 6 frames .* has Born charges"):
        with_born(nothing, row, frames)


def test_configuration_of_charges_alone(tmp_path, capsys):
    """``mlelec init`` reports the sum rule and takes charges of ions and electrons from the Born charges."""
    images = [frame.atoms.copy() for frame in make_wannier_frames(8)]
    for image in images:
        image.arrays["born_charges"] = law_of(image).reshape(-1, 9)
        image.arrays["born_charges"][0] += 0.5
    ase.io.write(tmp_path / "sio.extxyz", images)
    assert not main(["init", str(tmp_path / "sio.extxyz"), "-o", str(tmp_path / "sio.toml")])
    assert "an element of their sum over a structure is at most 0.5 e" in capsys.readouterr().out
    table = tomllib.loads((tmp_path / "sio.toml").read_text())
    ions, electrons = charges_like(images, [image.arrays["born_charges"].reshape(-1, 3, 3) for image in images])
    assert table["dipole"] == {"ions": ions, "electrons": electrons}
    assert electrons == {"O": 8} and 2 * ions["Si"] + 4 * (ions["O"] - 8) == pytest.approx(0)


def test_charges_of_ions_from_born_charges():
    magnesia = Atoms("MgO", [[0, 0, 0], [0, 0, 2.1]])
    charges = np.array([1.94, -1.96])[:, None, None] * np.eye(3)
    assert charges_like([magnesia], [charges]) == ({"Mg": 2, "O": 6}, {"O": 8})
    assert charges_like([magnesia], [abs(charges)]) is None  # no species takes electrons
    quartz = Atoms("SiO2", np.eye(3))
    charges = np.array([3.4, -1.72, -1.72])[:, None, None] * np.eye(3)  # as integers they would not be neutral
    ions, electrons = charges_like([quartz], [charges])
    assert (ions, electrons) == ({"Si": 3.4, "O": pytest.approx(6.3)}, {"O": 8})
    assert charges_like([quartz, Atoms("SiO", np.eye(3)[:2])], [charges, charges[:2]]) is None  # never both neutral
