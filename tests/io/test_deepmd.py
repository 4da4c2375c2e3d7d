"""deepmd-kit files: synthetic .dp models against an evaluator in NumPy alone (small_deepmd), and npy data folders."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError
from small_deepmd import STRUCTURES, TYPE_MAP, change, evaluate, predict, random_tree, write_dp

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.edges import Edges
from ase_mlelec.io.deepmd import read_data
from ase_mlelec.system import System

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("atoms", STRUCTURES, ids=["crystal", "molecule"])
@pytest.mark.parametrize("one_side", [True, False], ids=["one side", "two sides"])
def test_energy(tmp_path, one_side, atoms):
    """More slots than neighbors, a mean that is not zero, time steps wherever a layer has a skip."""
    tree = random_tree(one_side=one_side)
    wanted = evaluate(tree, atoms)[:, 0]
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    system = System.from_atoms(atoms)
    found = model(system, Edges.build(system, model.cutoff))["energy"].detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)  # the same formulas in another order
    found = DeepPotCalculator(model).get_property("energies", atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)  # truncation of the compressed embedding


@pytest.mark.parametrize("atoms", STRUCTURES, ids=["crystal", "molecule"])
def test_dos(tmp_path, atoms):
    tree = random_tree("dos", one_side=False, seed=1)
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    found = DeepDOSCalculator(model).get_ados(atoms)
    np.testing.assert_allclose(found, evaluate(tree, atoms), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["dipole", "polar", "full polar"])
@pytest.mark.parametrize("atoms", STRUCTURES, ids=["crystal", "molecule"])
def test_dipole_and_polarizability(tmp_path, kind, atoms):
    """Statistics, scale and both shifts of each type."""
    tree = random_tree(kind, seed=2)
    wanted = evaluate(tree, atoms)
    found = predict(load_model(write_dp(tmp_path / "m.dp", tree)), atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())


@pytest.mark.parametrize("by", ["no net", "exclude_types"])
def test_dipole_of_one_type(tmp_path, by):
    """The other one has none, and is not evaluated."""
    tree, atoms = random_tree("dipole", seed=2), STRUCTURES[0]
    wanted = evaluate(tree, atoms)
    wanted[atoms.numbers == 1] = 0
    if by == "no net":
        tree["model"]["fitting"]["nets"]["networks"][1] = None
    else:
        tree["model"]["fitting"]["exclude_types"] = [1]
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    assert model.heads["dipole"].centers == (0,)
    np.testing.assert_allclose(predict(model, atoms), wanted, rtol=0, atol=1e-13)


def test_constant_polarizability_of_a_type_without_net(tmp_path):
    tree, atoms = random_tree("polar", seed=2), STRUCTURES[0]
    tree["model"]["fitting"]["nets"]["networks"][1] = None
    found = predict(load_model(write_dp(tmp_path / "m.dp", tree)), atoms)
    np.testing.assert_allclose(found, evaluate(tree, atoms), rtol=0, atol=1e-12)


def test_polarizability_trained_with_tensorflow(tmp_path):
    """There the shift is not scaled, which its converter does not tell."""
    tree, atoms = random_tree("polar", seed=2), STRUCTURES[0]
    tree["backend"] = "TensorFlow"
    variables = tree["model"]["fitting"]["@variables"]
    found = predict(load_model(write_dp(tmp_path / "m.dp", tree)), atoms)
    constant, scale = variables["constant_matrix"], variables["scale"].ravel()
    tree["model"]["@variables"]["out_bias"][:] = 0
    variables["constant_matrix"] = constant / scale
    np.testing.assert_allclose(found, evaluate(tree, atoms), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["dipole", "polar"])
def test_models_that_deepmd_kit_trained(kind):
    """Made by tests/data/deepmd_models.py, which also tells what deepmd-kit computes with them."""
    with np.load(DATA / "deepmd.npz") as stored:
        data = dict(stored)
    model = load_model(DATA / f"deepmd_{kind}.dp")
    atoms = Atoms([TYPE_MAP[k] for k in data["types"]], data["positions"], cell=data["cell"], pbc=True)
    np.testing.assert_allclose(predict(model, atoms), data[kind], rtol=0, atol=1e-12)
    if kind == "dipole":
        model.metadata.update(valence_charges={"O": 6, "H": 1}, electrons_per_centre={"O": 8}, functions_per_vector=4)
        found = DeepWannierCalculator(model).get_centroids(atoms) - atoms.positions[data["types"] == 0]
        wanted = data[kind][data["types"] == 0] / 4
    else:
        found, wanted = DeepWannierCalculator(model).get_polarizability(atoms), data[kind].sum(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)  # truncation of the compressed embedding


def test_precision_of_the_file(tmp_path):
    tree, atoms = random_tree(), STRUCTURES[0]

    def singles(value):
        if isinstance(value, dict):
            return {key: singles(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [singles(entry) for entry in value]
        return value.astype(np.float32) if isinstance(value, np.ndarray) else value

    calculator = DeepPotCalculator(write_dp(tmp_path / "m.dp", singles(tree)))
    assert str(calculator.dtype) == "torch.float32"
    wanted = evaluate(tree, atoms)[:, 0]
    found = calculator.get_property("energies", atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)  # float32 holds 10 eV to 1e-6


def test_imported_model_can_be_saved(tmp_path):
    model = load_model(write_dp(tmp_path / "m.dp", random_tree(one_side=False)))
    model.save(tmp_path / "m.safetensors")
    again, atoms = load_model(tmp_path / "m.safetensors"), STRUCTURES[0]
    assert again.metadata["origin"] == "deepmd-kit 3.2.0" and again.species == ("O", "H")
    energies = [DeepPotCalculator(each).get_property("energies", atoms) for each in (model, again)]
    assert np.array_equal(*energies)


# models that cannot be imported ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit, cause",
    [
        (change("type", value="linear_ener"), "model type linear_ener"),
        (change("descriptor", "type", value="dpa1"), "descriptor dpa1"),
        (change("fitting", "type", value="property"), "fitting property"),
        (change("type", value="spin_ener"), "spin"),
        (change("type", value="a\nb\ud83d"), r"model type a b\?"),
        (change("spin", value={"use_spin": [True, False]}), "spin"),
        (change("model_dict", value={}), r"several models in one file \(freeze one of them with dp freeze --head\)"),
        (
            lambda tree: tree.update(model_def_script={"modifier": {"type": "dipole_charge"}}),
            r"the modifier dipole_charge \(long-range electrostatics\)",
        ),
        (change("descriptor", "activation_function", value="silut:3.0"), "activation function silut:3.0"),
        (change("fitting", "activation_function", value="mish"), "activation function mish"),
        (change("fitting", "numb_fparam", value=1), "frame or atomic parameters"),
        (change("fitting", "dim_case_embd", value=2), "frame or atomic parameters"),
        (change("fitting", "mixed_types", value=True), "mixed types"),
        (change("fitting", "tot_ener_zero", value=True), "tot_ener_zero"),
        (change("descriptor", "env_mat", value={"use_exp_switch": True}), "an exponential switch"),
        (change("descriptor", "spin", value={"use_spin": [True, False]}), "spin"),
        (change("type_map", value=["Ow", "Hw"]), "types that are no chemical symbols"),
        (change("type_map", value=["H", "h"]), "types that are no chemical symbols"),
    ],
)
def test_unsupported(tmp_path, edit, cause):
    tree = random_tree()
    edit(tree)
    with pytest.raises(CalculatorSetupError, match=rf"m\.dp: {cause} cannot be imported; supported are se_") as caught:
        load_model(write_dp(tmp_path / "m.dp", tree))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, index", [("davg", (0, 3, 0)), ("davg", (0, slice(None), 2)), ("dstd", (1, 0, 3))])
def test_statistics_no_such_model_has(tmp_path, name, index):
    tree = random_tree()
    tree["model"]["descriptor"]["@variables"][name][index] += 0.1
    with pytest.raises(CalculatorSetupError, match="davg or dstd differ between slots.*convert or copy it again"):
        load_model(write_dp(tmp_path / "m.dp", tree))


def test_kind_of_model_comes_first(tmp_path):
    """Models of other kinds have other keys."""
    for kind, cause in ("spin_ener", "spin"), ("zbl", "model type zbl"), ("pairtab", "model type pairtab"):
        tree = {"version": "3.2.0", "model": {"type": kind, "backbone_model": random_tree()["model"]}}
        with pytest.raises(CalculatorSetupError, match=rf"m\.dp: {cause} cannot be imported; supported are"):
            load_model(write_dp(tmp_path / "m.dp", tree))


def test_damaged(tmp_path):
    path = write_dp(tmp_path / "m.dp", random_tree())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CalculatorSetupError, match="m.dp is truncated or not a deepmd-kit .dp .*; convert or copy"):
        load_model(path)
    with h5py.File(path, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(CalculatorSetupError, match="m.dp is truncated or not a deepmd-kit .dp model"):
        load_model(path)


def test_changed_files():
    """Whatever is done to a file, a finite model is read, or it is refused in one line with its name."""
    content, generator = (DATA / "deepmd_options_dos.dp").read_bytes(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.dp"
        for k in range(60):
            changed = bytearray(content)
            if k % 5 == 0:
                changed = changed[: generator.integers(len(changed))]
            for place in generator.integers(len(changed), size=4):
                changed[place] = generator.integers(256)
            path.write_bytes(changed)
            try:
                model = load_model(path)
            except CalculatorSetupError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
            else:
                assert all(values.isfinite().all() for values in model.state_dict().values())


@pytest.mark.parametrize(
    "edit, cause",
    [
        (lambda tree: tree["model"]["descriptor"]["@variables"]["dstd"].fill(0), "dstd is not positive"),
        (lambda tree: tree["model"]["fitting"]["@variables"]["bias_atom_e"].fill(np.nan), "is NaN or infinite"),
        (change("descriptor", "rcut", value=1e300), "'rcut' is 1e"),
        (change("descriptor", "neuron", value=[3, 6, 10**9]), "'neuron' is .*need whole numbers"),
        (change("descriptor", "neuron", value=[3, 6]), "a net has 3 layers, need 2"),
        (change("descriptor", "sel", value=[10**6, 10**6]), r"has shape \(2, 71, 4\), need \(2, 2000000, 4\)"),
        (
            change("descriptor", "exclude_types", value=[[0, 7]]),
            "'exclude_types' is .*need pairs of indices of the 2 t",
        ),
        (change("atom_exclude_types", value=[0, -1]), "'atom_exclude_types' is .*need indices"),
        (lambda tree: tree["model"]["fitting"]["nets"]["networks"].pop(), "1 fitting nets for 2 types"),
        (
            lambda tree: tree["model"]["descriptor"]["embeddings"]["networks"][1]["layers"][0].update(
                activation_function="relu"
            ),
            "a layer with the activation function 'relu'",
        ),
        (lambda tree: tree["model"].pop("descriptor"), "'descriptor' is missing"),
    ],
)
def test_damaged_contents(tmp_path, edit, cause):
    tree = random_tree()
    edit(tree)
    with pytest.raises(CalculatorSetupError, match=rf"m\.dp is truncated or not a deepmd-kit .*({cause})") as caught:
        load_model(write_dp(tmp_path / "m.dp", tree))
    assert "\n" not in str(caught.value)


# data folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two sets of two and one frames: H, O, H in a cell."""
    generator = np.random.default_rng(0)
    (tmp_path / "type.raw").write_text("1\n0\n1\n")
    (tmp_path / "type_map.raw").write_text("O\nH\n")
    for name, n in ("set.000", 2), ("set.001", 1):
        (tmp_path / name).mkdir()
        shapes = {
            "coord": 9,
            "box": 9,
            "force": 9,
            "virial": 9,
            "atom_dos": 3 * 4,
            "dos": 4,
            "dipole": 3,
            "atomic_polarizability": 27,
        }
        for stem, width in shapes.items():
            np.save(tmp_path / name / f"{stem}.npy", generator.normal(size=(n, width)).astype(np.float32))
        virials = np.load(tmp_path / name / "virial.npy").reshape(n, 3, 3)
        np.save(tmp_path / name / "virial.npy", (virials + virials.swapaxes(1, 2)).reshape(n, 9))
        np.save(tmp_path / name / "energy.npy", generator.normal(size=n))
    return tmp_path


def test_read_data(folder):
    frames = read_data(folder)
    assert len(frames) == 3
    for k, (atoms, labels) in enumerate(frames):
        stored = {file.stem: np.load(file)[k % 2] for file in (folder / f"set.00{k // 2}").iterdir()}
        assert atoms.get_chemical_formula(mode="reduce") == "HOH" and atoms.pbc.all()
        assert np.array_equal(atoms.positions, stored["coord"].reshape(3, 3))
        assert np.array_equal(atoms.cell.array, stored["box"].reshape(3, 3))
        assert labels["energy"] == stored["energy"] and np.ndim(labels["energy"]) == 0
        assert np.array_equal(labels["forces"], stored["force"].reshape(3, 3))
        assert np.array_equal(labels["virial"], stored["virial"].reshape(3, 3))
        assert np.array_equal(labels["ados"], stored["atom_dos"].reshape(3, 4))
        assert np.array_equal(labels["dos"], stored["dos"])
        assert np.array_equal(labels["summed_dipole"], stored["dipole"]) and "dipole" not in labels
        assert np.array_equal(labels["atomic_polarizability"], stored["atomic_polarizability"].reshape(3, 3, 3))


def test_atoms_of_one_type_alone(folder):
    """deepmd-kit also takes files with the chosen atoms alone: one O, then two H among H, O, H."""
    for kind, count in ("O", 1), ("H", 2):
        values = np.random.default_rng(0).normal(size=(2, count * 3))
        np.save(folder / "set.000" / "atomic_dipole.npy", values)
        np.save(folder / "set.000" / "atom_polarizability.npy", np.repeat(values, 3, axis=1))  # their other name
        (folder / "set.000" / "atomic_polarizability.npy").unlink(missing_ok=True)
        first, second, *_ = read_data(folder)
        for k, (atoms, labels) in enumerate([first, second]):
            chosen = atoms.symbols == kind
            assert np.array_equal(labels["atomic_dipole"][chosen], values[k].reshape(-1, 3))
            assert labels["atomic_polarizability"].shape == (3, 3, 3)
            assert not labels["atomic_dipole"][~chosen].any() and not labels["atomic_polarizability"][~chosen].any()


@pytest.mark.parametrize("keep_box", [True, False])
def test_nopbc_ignores_the_box(folder, keep_box):
    (folder / "nopbc").touch()
    if not keep_box:
        for file in folder.glob("set.*/box.npy"):
            file.unlink()
    images = [atoms for atoms, _ in read_data(folder)]
    assert images and not any(atoms.pbc.any() or atoms.cell.rank for atoms in images)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "type.raw").unlink(), "no type.raw; give a deepmd npy system folder"),
        (lambda f: (f / "type_map.raw").unlink(), "no type_map.raw; write one symbol per line"),
        (lambda f: (f / "type_map.raw").write_text("O\n"), "does not name the chemical species of all types; correct"),
        (
            lambda f: (f / "type_map.raw").write_text("O\nQq\n"),
            "does not name the chemical species of all types; correct",
        ),
        (lambda f: (f / "type.raw").write_text("1 0 -1"), "does not name the chemical species of all types; correct"),
        (lambda f: (f / "set.001" / "box.npy").unlink(), "no box.npy; add it, or an empty file 'nopbc'"),
        (lambda f: (f / "set.000" / "coord.npy").unlink(), "no coord.npy; the set is incomplete"),
        (
            lambda f: (f / "type.raw").write_text("1 0"),
            r"shape \(2, 9\) does not fit any number of frames of 6 numbers; check",
        ),
        (
            lambda f: np.save(f / "set.000" / "force.npy", np.zeros((2, 6))),
            r"force.npy: shape \(2, 6\) does not fit 2 fra",
        ),
    ],
)
def test_bad_folders(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        read_data(folder)
    assert "\n" not in str(caught.value)


def test_no_sets(tmp_path):
    (tmp_path / "type.raw").write_text("0")
    (tmp_path / "type_map.raw").write_text("H")
    with pytest.raises(ValueError, match=r"no set.\* folder; give the folder that holds type.raw and set.000"):
        read_data(tmp_path)
