"""deepmd-kit files: synthetic .dp models against an evaluator in NumPy alone, and npy data folders.

The evaluator below is written from the published formulas, atom by atom and slot by slot, and shares no code with the
package: Zhang et al. 2018 (DeepPot-SE) with the storage conventions of deepmd-kit 3 (se_e2_a).
"""
import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.edges import Edges
from ase_mlelec.io.deepmd import read_data
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

TYPE_MAP = ["O", "H"]
DATA = Path(__file__).parents[1] / "data"


# writing a .dp file ------------------------------------------------------------------------------------------------

def random_layers(generator, n_in, widths, n_out=None, timestep=False):
    layers = []
    for width in widths:
        skip = width in (n_in, 2 * n_in)
        layers.append({"activation_function": "tanh", "resnet": True, "bias": True, "@variables": {
            "w": generator.normal(0, (n_in + width) ** -0.5, (n_in, width)), "b": generator.normal(0, 0.5, width),
            "idt": generator.normal(0.1, 0.02, width) if timestep and skip else None}})
        n_in = width
    if n_out:
        layers.append({"activation_function": "none", "resnet": False, "bias": True, "@variables": {
            "w": generator.normal(0, n_in**-0.5, (n_in, n_out)), "b": generator.normal(0, 1, n_out), "idt": None}})
    return {"layers": layers}


def random_tree(kind="ener", one_side=True, seed=0, sel=(30, 41)):
    """The nested dict of a two-type model, arrays in place.

    There are as many features as the first layer of the fitting net is wide, so that it has a skip.
    """
    generator = np.random.default_rng(seed)
    n_out = {"ener": 1, "dos": 5, "dipole": 6, "polar": 6, "full polar": 36}[kind]
    neuron, axis = [3, 6, 6], 2
    davg, dstd = np.zeros((2, sum(sel), 4)), np.ones((2, sum(sel), 4))
    davg[..., 0] = generator.uniform(0.05, 0.2, (2, 1))
    dstd[..., 0], dstd[..., 1:] = generator.uniform(0.3, 0.6, (2, 1)), generator.uniform(0.2, 0.4, (2, 1, 1))
    n_nets = 2 if one_side else 4
    descriptor = {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 1.1, "sel": list(sel), "neuron": neuron,
                  "axis_neuron": axis, "resnet_dt": False, "activation_function": "tanh", "type_one_side": one_side,
                  "embeddings": {"networks": [random_layers(generator, 1, neuron) for _ in range(n_nets)]},
                  "env_mat": {"use_exp_switch": False}, "exclude_types": [], "env_protection": 0.0, "spin": None,
                  "@variables": {"davg": davg, "dstd": dstd}}
    fitting = {"type": kind.split()[-1], "dim_out": n_out, "neuron": [12, 12, 8], "resnet_dt": True,
               "activation_function": "tanh", "numb_fparam": 0, "numb_aparam": 0, "dim_case_embd": 0,
               "mixed_types": False, "exclude_types": [], "tot_ener_zero": False, "atom_ener": None, "spin": None,
               "nets": {"networks": [random_layers(generator, 12, [12, 12, 8], n_out, True) for _ in TYPE_MAP]},
               "@variables": {"bias_atom_e": generator.normal(0, 1, (2, n_out))}}
    if "polar" in kind:
        fitting |= {"fit_diag": kind == "polar", "shift_diag": True}
        fitting["@variables"] |= {"scale": np.array([[1.5], [0.7]]), "constant_matrix": np.array([2.0, 0.3])}
    n_bias = {"dipole": 3, "polar": 9}.get(fitting["type"], n_out)
    return {"version": "3.2.0", "backend": "PyTorch", "model": {
        "type": "standard", "type_map": TYPE_MAP, "atom_exclude_types": [], "pair_exclude_types": [],
        "descriptor": descriptor, "fitting": fitting,
        "@variables": {"out_bias": generator.normal(-5, 1, (1, 2, n_bias)), "out_std": np.full((1, 2, n_bias), 7.0)}}}


def write_dp(path, tree):
    """Arrays become datasets /variable_NNNN, their names take their places in the JSON of the root attribute."""
    with h5py.File(path, "w") as file:
        def stored(value):
            if isinstance(value, dict):
                return {key: stored(entry) for key, entry in value.items()}
            if isinstance(value, list):
                return [stored(entry) for entry in value]
            if isinstance(value, np.ndarray):
                name = f"/variable_{len(file):04d}"
                file[name] = value
                return name
            return value
        file.attrs["json"] = json.dumps(stored(tree))
    return path


# the evaluator -----------------------------------------------------------------------------------------------------

def apply_net(x, net):
    for layer in net["layers"]:
        variables = layer["@variables"]
        y = x @ variables["w"] + variables["b"]
        if layer["activation_function"] == "tanh":
            y = np.tanh(y)
        if variables["idt"] is not None:
            y = y * variables["idt"]
        if layer["resnet"] and len(y) == len(x):
            y = y + x
        elif layer["resnet"] and len(y) == 2 * len(x):
            y = y + np.concatenate([x, x])
        x = y
    return x


def neighbours(atoms, i, cutoff):
    """(type, vector) of everything within the cutoff of atom i."""
    for shift in itertools.product(range(-3, 4), repeat=3) if atoms.pbc.any() else [(0, 0, 0)]:
        for j, symbol in enumerate(atoms.symbols):
            vector = atoms.positions[j] + shift @ atoms.cell.array - atoms.positions[i]
            if 0 < np.linalg.norm(vector) < cutoff:
                yield TYPE_MAP.index(symbol), vector


def evaluate(tree, atoms):
    """Atomic property of every atom [N, n_out]."""
    model = tree["model"]
    descriptor, fitting = model["descriptor"], model["fitting"]
    smooth, cutoff, sel = descriptor["rcut_smth"], descriptor["rcut"], descriptor["sel"]
    mean, scale = (descriptor["@variables"][name] for name in ("davg", "dstd"))
    out = []
    for i, symbol in enumerate(atoms.symbols):
        centre = TYPE_MAP.index(symbol)
        rows = [[], []]
        for kind, vector in neighbours(atoms, i, cutoff):
            r = np.linalg.norm(vector)
            u = np.clip((r - smooth) / (cutoff - smooth), 0, 1)
            weight = 1 - 10 * u**3 + 15 * u**4 - 6 * u**5
            rows[kind].append(np.concatenate([[weight / r], weight * vector / r**2]))
        t = 0
        for kind in range(2):
            assert len(rows[kind]) <= sel[kind]
            rows[kind] += [np.zeros(4)] * (sel[kind] - len(rows[kind]))
            net = descriptor["embeddings"]["networks"][kind if descriptor["type_one_side"] else centre + 2 * kind]
            for slot, row in enumerate(rows[kind]):
                slot += sum(sel[:kind])
                row = (row - mean[centre, slot]) / scale[centre, slot]
                t = t + np.outer(apply_net(row[:1], net), row) / sum(sel)
        features = (t @ t[:descriptor["axis_neuron"]].T).ravel()
        net = fitting["nets"]["networks"][centre]
        y = 0 if net is None else apply_net(features, net) + fitting["@variables"]["bias_atom_e"][centre]
        out.append(atomic_property(y, t[:, 1:], fitting, model["@variables"]["out_bias"][0, centre], centre))
    return np.array(out)


def atomic_property(y, rows, fitting, bias, centre):
    """What the output of the net, 0 for a type without net, and the rows [M, 3] that turn with the structure mean."""
    if fitting["type"] == "dipole":
        return y * np.ones(len(rows)) @ rows
    if fitting["type"] != "polar":
        return y + bias
    factors = np.diag(y * np.ones(len(rows))) if fitting["fit_diag"] else np.reshape(y, (len(rows), -1))
    scale, constant = (fitting["@variables"][name].ravel()[centre] for name in ("scale", "constant_matrix"))
    value = rows.T @ (factors + factors.T) @ rows / 2
    return scale * (value + (constant + bias.reshape(3, 3).trace() / 3) * np.eye(3))


STRUCTURES = [random_atoms("O2H4", [[4.0, 0, 0], [0.7, 4.4, 0], [0, -0.5, 4.2]], shortest=1.1),
              random_atoms("OH2", shortest=1.0)]


@pytest.mark.parametrize("atoms", STRUCTURES, ids=["crystal", "molecule"])
@pytest.mark.parametrize("one_side", [True, False], ids=["one side", "two sides"])
def test_energy(tmp_path, one_side, atoms):
    """More slots than neighbours, a mean that is not zero, time steps wherever a layer has a skip."""
    tree = random_tree(one_side=one_side)
    wanted = evaluate(tree, atoms)[:, 0]
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    system = System.from_atoms(atoms)
    found = model(system, Edges.build(system, model.cutoff))["energy"].detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)       # the same formulas in another order
    found = DeepPotCalculator(model).get_property("energies", atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)       # truncation of the compressed embedding


@pytest.mark.parametrize("atoms", STRUCTURES, ids=["crystal", "molecule"])
def test_dos(tmp_path, atoms):
    tree = random_tree("dos", one_side=False, seed=1)
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    found = DeepDOSCalculator(model).get_ados(atoms)
    np.testing.assert_allclose(found, evaluate(tree, atoms), rtol=0, atol=1e-10)


def predict(model, atoms):
    system = System.from_atoms(atoms)
    quantity, = model.heads
    return model(system, Edges.build(system, model.cutoff))[quantity].detach().numpy()


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
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)       # truncation of the compressed embedding


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
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)        # float32 holds 10 eV to 1e-6


def test_imported_model_can_be_saved(tmp_path):
    model = load_model(write_dp(tmp_path / "m.dp", random_tree(one_side=False)))
    model.save(tmp_path / "m.safetensors")
    again, atoms = load_model(tmp_path / "m.safetensors"), STRUCTURES[0]
    assert again.metadata["origin"] == "deepmd-kit 3.2.0" and again.species == ("O", "H")
    energies = [DeepPotCalculator(each).get_property("energies", atoms) for each in (model, again)]
    assert np.array_equal(*energies)


# models that cannot be imported ------------------------------------------------------------------------------------

def change(*keys, value):
    def apply(tree):
        part = tree["model"]
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
    return apply


@pytest.mark.parametrize("edit, cause", [
    (change("type", value="linear_ener"), "model type linear_ener"),
    (change("descriptor", "type", value="dpa1"), "descriptor dpa1"),
    (change("fitting", "type", value="property"), "fitting property"),
    (change("fitting", "exclude_types", value=[1]), "excluded types or pairs"),
    (change("descriptor", "activation_function", value="gelu"), "an activation other than tanh"),
    (change("fitting", "activation_function", value="relu"), "an activation other than tanh"),
    (change("descriptor", "exclude_types", value=[[0, 1]]), "excluded types or pairs"),
    (change("atom_exclude_types", value=[1]), "excluded types or pairs"),
    (change("fitting", "numb_fparam", value=1), "frame or atomic parameters"),
    (change("fitting", "dim_case_embd", value=2), "frame or atomic parameters"),
    (change("fitting", "mixed_types", value=True), "mixed types"),
    (change("fitting", "atom_ener", value=[None, -13.6]), "atomic energies in vacuum"),
    (change("fitting", "tot_ener_zero", value=True), "tot_ener_zero"),
    (change("descriptor", "env_protection", value=0.1), "env_protection"),
    (change("descriptor", "env_mat", value={"use_exp_switch": True}), "an exponential switch"),
    (change("descriptor", "resnet_dt", value=True), "a time step in the embedding nets"),
    (change("descriptor", "spin", value={"use_spin": [True, False]}), "spin"),
    (change("type_map", value=["Ow", "Hw"]), "types that are no chemical symbols"),
])
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


def test_damaged(tmp_path):
    path = write_dp(tmp_path / "m.dp", random_tree())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CalculatorSetupError, match="m.dp is truncated or not a deepmd-kit .dp .*; convert or copy"):
        load_model(path)
    with h5py.File(path, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(CalculatorSetupError, match="m.dp is truncated or not a deepmd-kit .dp model"):
        load_model(path)


# data folders ------------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    """Two sets of two and one frames: H, O, H in a cell."""
    generator = np.random.default_rng(0)
    (tmp_path / "type.raw").write_text("1\n0\n1\n")
    (tmp_path / "type_map.raw").write_text("O\nH\n")
    for name, n in ("set.000", 2), ("set.001", 1):
        (tmp_path / name).mkdir()
        shapes = {"coord": 9, "box": 9, "force": 9, "virial": 9, "atom_dos": 3 * 4, "dos": 4, "dipole": 3,
                  "atomic_polarizability": 27}
        for stem, width in shapes.items():
            np.save(tmp_path / name / f"{stem}.npy", generator.normal(size=(n, width)).astype(np.float32))
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
        np.save(folder / "set.000" / "atomic_polarizability.npy", np.repeat(values, 3, axis=1))
        for k, (atoms, labels) in enumerate(read_data(folder)[:2]):
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
    for atoms, _ in read_data(folder):
        assert not atoms.pbc.any() and atoms.cell.rank == 0


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "type.raw").unlink(), "no type.raw; give a deepmd npy system folder"),
    (lambda f: (f / "type_map.raw").unlink(), "no type_map.raw; write one symbol per line"),
    (lambda f: (f / "type_map.raw").write_text("O\n"), "does not name the chemical species of all types; correct"),
    (lambda f: (f / "type_map.raw").write_text("O\nQq\n"), "does not name the chemical species of all types; correct"),
    (lambda f: (f / "type.raw").write_text("1 0 -1"), "does not name the chemical species of all types; correct"),
    (lambda f: (f / "set.001" / "box.npy").unlink(), "no box.npy; add it, or an empty file 'nopbc'"),
    (lambda f: (f / "set.000" / "coord.npy").unlink(), "no coord.npy; the set is incomplete"),
    (lambda f: (f / "type.raw").write_text("1 0"),
     r"shape \(2, 9\) does not fit any number of frames of 6 numbers; check"),
    (lambda f: np.save(f / "set.000" / "force.npy", np.zeros((2, 6))), r"force.npy: shape \(2, 6\) does not fit 2 fra"),
])
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
