"""deepmd-kit files: synthetic .dp models against an evaluator in NumPy alone, and npy data folders.

The evaluator below is written from the published formulas, atom by atom and slot by slot, and shares no code with the
package: Zhang et al. 2018 (DeepPot-SE) with the storage conventions of deepmd-kit 3 (se_e2_a).
"""
import itertools
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError

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

FUNCTIONS = {"tanh": np.tanh, "none": lambda x: x, "relu": lambda x: x * (x > 0), "relu6": lambda x: np.clip(x, 0, 6),
             "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "silu": lambda x: x / (1 + np.exp(-x)),
             "softplus": lambda x: np.logaddexp(x, 0),
             "gelu": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))}


def apply_net(x, net):
    for layer in net["layers"]:
        variables = layer["@variables"]
        y = FUNCTIONS[layer["activation_function"]](x @ variables["w"] + variables["b"])
        if variables["idt"] is not None:
            y = y * variables["idt"]
        if layer["resnet"] and y.shape[-1] == x.shape[-1]:
            y = y + x
        elif layer["resnet"] and y.shape[-1] == 2 * x.shape[-1]:
            y = y + np.concatenate([x, x], axis=-1)
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
        dropped, silent = ({frozenset(pair) for pair in part.get(key, ())} for part, key in (
            (model, "pair_exclude_types"), (descriptor, "exclude_types")))
        for kind, vector in neighbours(atoms, i, cutoff):
            if {centre, kind} in dropped:
                continue
            r = np.linalg.norm(vector)
            u = np.clip((r - smooth) / (cutoff - smooth), 0, 1)
            weight = 1 - 10 * u**3 + 15 * u**4 - 6 * u**5
            r += descriptor["env_protection"]
            rows[kind].append(np.concatenate([[weight / r], weight * vector / r**2]))
        t = 0
        for kind in range(2):
            assert len(rows[kind]) <= sel[kind]
            n_found = len(rows[kind])
            rows[kind] += [np.zeros(4)] * (sel[kind] - len(rows[kind]))
            net = descriptor["embeddings"]["networks"][kind if descriptor["type_one_side"] else centre + 2 * kind]
            slots = slice(sum(sel[:kind]), sum(sel[:kind + 1]))
            block = (np.array(rows[kind]) - mean[centre, slots]) / scale[centre, slots]
            if {centre, kind} in silent:
                block = block[:0] if tree["backend"] == "TensorFlow" else block[n_found:]
            t = t + apply_net(block[:, :1], net).T @ block / sum(sel)
        features = (t @ t[:descriptor["axis_neuron"]].T).ravel()
        net = fitting["nets"]["networks"][centre]
        y = 0 if net is None else apply_net(features, net) + fitting["@variables"]["bias_atom_e"][centre]
        if any(fitting["atom_ener"] or []) and fitting["atom_ener"][centre] is not None:
            y = y - apply_net(0 * features, net)
        if fitting["type"] in ("ener", "dos") and centre in fitting["exclude_types"]:
            y = 0 * y
        out.append(atomic_property(y, t[:, 1:], fitting, model["@variables"]["out_bias"][0, centre], centre))
    out = np.array(out)
    out[[TYPE_MAP.index(symbol) in model["atom_exclude_types"] for symbol in atoms.symbols]] = 0
    return out


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


# options that few models have --------------------------------------------------------------------------------------

def change(*keys, value):
    def apply(tree):
        part = tree["model"] if keys[0] != "backend" else tree
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
    return apply


def with_functions(embedding, fitting):
    def apply(tree):
        for name, function in ("descriptor", embedding), ("fitting", fitting):
            part = tree["model"][name]
            part["activation_function"] = function
            for net in part["embeddings" if name == "descriptor" else "nets"]["networks"]:
                for layer in net["layers"]:
                    if layer["activation_function"] != "none":
                        layer["activation_function"] = function
    return apply


def with_timesteps(tree):
    descriptor, generator = tree["model"]["descriptor"], np.random.default_rng(5)
    descriptor["resnet_dt"] = True
    descriptor["embeddings"]["networks"] = [random_layers(generator, 1, [3, 6, 6], timestep=True)
                                            for _ in descriptor["embeddings"]["networks"]]


def combined(*edits):
    def apply(tree):
        for edit in edits:
            edit(tree)
    return apply


TENSORFLOW = change("backend", value="TensorFlow")
OPTIONS = {
    "time steps in the embedding": with_timesteps,
    "protection": change("descriptor", "env_protection", value=0.1),
    "pairs of the descriptor": change("descriptor", "exclude_types", value=[[0, 1]]),
    "pairs of the descriptor, TensorFlow": combined(TENSORFLOW, change("descriptor", "exclude_types", value=[[1, 0]])),
    "pairs of the model": change("pair_exclude_types", value=[[0, 1], [1, 1]]),
    "pairs of both": combined(change("pair_exclude_types", value=[[1, 1]]),
                              change("descriptor", "exclude_types", value=[[0, 1], [1, 1]])),
    "types of the model": change("atom_exclude_types", value=[1]),
    "types of the fitting": change("fitting", "exclude_types", value=[0]),
    "energies in vacuum": change("fitting", "atom_ener", value=[None, -13.6]),
    "gelu and softplus": with_functions("gelu", "softplus"),
    "silu and sigmoid": with_functions("silu", "sigmoid"),
    "relu and relu6": with_functions("relu", "relu6"),
}


@pytest.mark.parametrize("one_side", [True, False], ids=["one side", "two sides"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options(tmp_path, option, one_side):
    """Of energies; also after they were saved as our own model, and by the calculator with its series."""
    tree, atoms = random_tree(one_side=one_side, seed=4), STRUCTURES[0]
    plain = evaluate(tree, atoms)[:, 0]
    OPTIONS[option](tree)
    wanted = evaluate(tree, atoms)[:, 0]
    assert np.abs(wanted - plain).max() > 1e-4
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    np.testing.assert_allclose(predict(model, atoms), wanted, rtol=0, atol=1e-13)
    model.save(tmp_path / "m.safetensors")
    calculator = DeepPotCalculator(tmp_path / "m.safetensors")
    np.testing.assert_allclose(calculator.get_property("energies", atoms), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["dos", "dipole", "polar"])
@pytest.mark.parametrize("option", ["time steps in the embedding", "pairs of the descriptor", "types of the model"])
def test_options_of_other_quantities(tmp_path, kind, option):
    tree, atoms = random_tree(kind, seed=4), STRUCTURES[0]
    OPTIONS[option](tree)
    wanted = evaluate(tree, atoms)
    found = predict(load_model(write_dp(tmp_path / "m.dp", tree)), atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * max(1, np.abs(wanted).max()))


def test_forces_with_excluded_pairs(tmp_path):
    """The calculator's gradient against differences of the energy."""
    tree, atoms = random_tree(seed=4), STRUCTURES[0].copy()
    combined(with_timesteps, OPTIONS["pairs of both"], OPTIONS["protection"])(tree)
    atoms.calc = DeepPotCalculator(write_dp(tmp_path / "m.dp", tree))
    forces, h = atoms.get_forces(), 1e-4
    for i, axis in (0, 0), (3, 2):
        energies = []
        for step in h, -h:
            atoms.positions[i, axis] += step
            energies.append(atoms.get_potential_energy())
            atoms.positions[i, axis] -= step
        np.testing.assert_allclose(forces[i, axis], (energies[1] - energies[0]) / (2 * h), atol=1e-6)


@pytest.mark.parametrize("name, tolerance", [("excluded", 1e-12), ("functions", 1e-12), ("dos", 1e-12),
                                             ("single", 1e-7)])     # the last one's nets are evaluated in float32 there
def test_options_as_deepmd_kit_computes_them(name, tolerance):
    """Made by tests/data/deepmd_options.py."""
    with np.load(DATA / "deepmd_options.npz") as stored:
        data = dict(stored)
    symbols = [str(symbol).capitalize() for symbol in data["names"][data["types"]]]
    atoms = Atoms(symbols, data["positions"], cell=data["cell"], pbc=True)
    found = predict(load_model(DATA / f"deepmd_options_{name}.dp"), atoms)
    np.testing.assert_allclose(found, data[name].reshape(found.shape), rtol=0, atol=tolerance)


# more neighbours than sel ------------------------------------------------------------------------------------------

def small_sel(path, **options):
    return DeepPotCalculator(write_dp(path, random_tree(sel=(1, 41))), **options)


def test_more_neighbours_than_the_other_program_keeps(tmp_path):
    atoms = STRUCTURES[0].copy()
    atoms.calc = small_sel(tmp_path / "m.dp")
    found = max(sum(kind == 0 for kind, _ in neighbours(atoms, i, 4.0)) for i in range(len(atoms)))
    with pytest.warns(UserWarning, match=rf"has {found} neighbours of O within 4 Å.*\(deepmd-kit 3.2.0\) keeps the near"
                                         r"est 1 \(its sel\) and drops the others.*larger sel") as caught:
        atoms.get_potential_energy()
    assert len(caught) == 1
    atoms.rattle(0.01)
    atoms.get_potential_energy()        # once per run: a second warning were an error here


def test_neighbours_of_a_saved_model_in_a_committee(tmp_path):
    """Also through each_of; and a model with enough slots is quiet."""
    few, enough = (load_model(write_dp(tmp_path / "m.dp", random_tree(sel=sel))) for sel in ((1, 41), (30, 41)))
    few.save(tmp_path / "few.safetensors")
    with pytest.warns(UserWarning, match="keeps the nearest 1"):
        list(DeepPotCalculator([enough, tmp_path / "few.safetensors"]).each_of([STRUCTURES[0]]))
    DeepPotCalculator(enough).get_property("energy", STRUCTURES[0])
    with pytest.raises(CalculationFailed, match="keeps the nearest 1"):
        small_sel(tmp_path / "m.dp", on_extrapolation="raise").get_property("energy", STRUCTURES[0])
    small_sel(tmp_path / "m.dp", on_extrapolation="ignore").get_property("energy", STRUCTURES[0])


# models that cannot be imported ------------------------------------------------------------------------------------

@pytest.mark.parametrize("edit, cause", [
    (change("type", value="linear_ener"), "model type linear_ener"),
    (change("descriptor", "type", value="dpa1"), "descriptor dpa1"),
    (change("fitting", "type", value="property"), "fitting property"),
    (change("type", value="spin_ener"), "spin"),
    (change("spin", value={"use_spin": [True, False]}), "spin"),
    (change("model_dict", value={}), r"several models in one file \(freeze one of them with dp freeze --head\)"),
    (lambda tree: tree.update(model_def_script={"modifier": {"type": "dipole_charge"}}),
     r"the modifier dipole_charge \(long-range electrostatics\)"),
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
                changed = changed[:generator.integers(len(changed))]
            for place in generator.integers(len(changed), size=4):
                changed[place] = generator.integers(256)
            path.write_bytes(changed)
            try:
                model = load_model(path)
            except CalculatorSetupError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
            else:
                assert all(values.isfinite().all() for values in model.state_dict().values())


@pytest.mark.parametrize("edit, cause", [
    (lambda tree: tree["model"]["descriptor"]["@variables"]["dstd"].fill(0), "dstd is not positive"),
    (lambda tree: tree["model"]["fitting"]["@variables"]["bias_atom_e"].fill(np.nan), "is NaN or infinite"),
    (change("descriptor", "rcut", value=1e300), "'rcut' is 1e"),
    (change("descriptor", "neuron", value=[3, 6, 10**9]), "'neuron' is .*need whole numbers"),
    (change("descriptor", "neuron", value=[3, 6]), "a net has 3 layers, need 2"),
    (change("descriptor", "sel", value=[10**6, 10**6]), r"has shape \(2, 71, 4\), need \(2, 2000000, 4\)"),
    (change("descriptor", "exclude_types", value=[[0, 7]]), "'exclude_types' is .*need pairs of indices of the 2 types"),
    (change("atom_exclude_types", value=[0, -1]), "'atom_exclude_types' is .*need indices"),
    (lambda tree: tree["model"]["fitting"]["nets"]["networks"].pop(), "1 fitting nets for 2 types"),
    (lambda tree: tree["model"]["descriptor"]["embeddings"]["networks"][1]["layers"][0].update(
        activation_function="relu"), "a layer with the activation function 'relu'"),
    (lambda tree: tree["model"].pop("descriptor"), "'descriptor' is missing"),
])
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
