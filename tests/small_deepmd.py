"""Synthetic .dp models of deepmd-kit and an evaluator for them in NumPy alone.

The evaluator is written from the published formulas, atom by atom and slot by slot, and shares no code with the
package: Zhang et al. 2018 (DeepPot-SE) with the storage conventions of deepmd-kit 3 (se_e2_a).
"""

import itertools
import json

import h5py
import numpy as np

from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

TYPE_MAP = ["O", "H"]


# writing a .dp file ------------------------------------------------------------------------------------------------


def random_layers(generator, n_in, widths, n_out=None, timestep=False):
    layers = []
    for width in widths:
        skip = width in (n_in, 2 * n_in)
        layers.append(
            {
                "activation_function": "tanh",
                "resnet": True,
                "bias": True,
                "@variables": {
                    "w": generator.normal(0, (n_in + width) ** -0.5, (n_in, width)),
                    "b": generator.normal(0, 0.5, width),
                    "idt": generator.normal(0.1, 0.02, width) if timestep and skip else None,
                },
            }
        )
        n_in = width
    if n_out:
        layers.append(
            {
                "activation_function": "none",
                "resnet": False,
                "bias": True,
                "@variables": {
                    "w": generator.normal(0, n_in**-0.5, (n_in, n_out)),
                    "b": generator.normal(0, 1, n_out),
                    "idt": None,
                },
            }
        )
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
    descriptor = {
        "type": "se_e2_a",
        "rcut": 4.0,
        "rcut_smth": 1.1,
        "sel": list(sel),
        "neuron": neuron,
        "axis_neuron": axis,
        "resnet_dt": False,
        "activation_function": "tanh",
        "type_one_side": one_side,
        "embeddings": {"networks": [random_layers(generator, 1, neuron) for _ in range(n_nets)]},
        "env_mat": {"use_exp_switch": False},
        "exclude_types": [],
        "env_protection": 0.0,
        "spin": None,
        "@variables": {"davg": davg, "dstd": dstd},
    }
    fitting = {
        "type": kind.split()[-1],
        "dim_out": n_out,
        "neuron": [12, 12, 8],
        "resnet_dt": True,
        "activation_function": "tanh",
        "numb_fparam": 0,
        "numb_aparam": 0,
        "dim_case_embd": 0,
        "mixed_types": False,
        "exclude_types": [],
        "tot_ener_zero": False,
        "atom_ener": None,
        "spin": None,
        "nets": {"networks": [random_layers(generator, 12, [12, 12, 8], n_out, True) for _ in TYPE_MAP]},
        "@variables": {"bias_atom_e": generator.normal(0, 1, (2, n_out))},
    }
    if "polar" in kind:
        fitting |= {"fit_diag": kind == "polar", "shift_diag": True}
        fitting["@variables"] |= {"scale": np.array([[1.5], [0.7]]), "constant_matrix": np.array([2.0, 0.3])}
    n_bias = {"dipole": 3, "polar": 9}.get(fitting["type"], n_out)
    return {
        "version": "3.2.0",
        "backend": "PyTorch",
        "model": {
            "type": "standard",
            "type_map": TYPE_MAP,
            "atom_exclude_types": [],
            "pair_exclude_types": [],
            "descriptor": descriptor,
            "fitting": fitting,
            "@variables": {
                "out_bias": generator.normal(-5, 1, (1, 2, n_bias)),
                "out_std": np.full((1, 2, n_bias), 7.0),
            },
        },
    }


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

FUNCTIONS = {
    "tanh": np.tanh,
    "none": lambda x: x,
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "gelu": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
}


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


def neighbors(atoms, i, cutoff):
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
        center = TYPE_MAP.index(symbol)
        rows = [[], []]
        dropped, silent = (
            {frozenset(pair) for pair in part.get(key, ())}
            for part, key in ((model, "pair_exclude_types"), (descriptor, "exclude_types"))
        )
        for kind, vector in neighbors(atoms, i, cutoff):
            if {center, kind} in dropped:
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
            net = descriptor["embeddings"]["networks"][kind if descriptor["type_one_side"] else center + 2 * kind]
            slots = slice(sum(sel[:kind]), sum(sel[: kind + 1]))
            block = (np.array(rows[kind]) - mean[center, slots]) / scale[center, slots]
            if {center, kind} in silent:
                block = block[:0] if tree["backend"] == "TensorFlow" else block[n_found:]
            t = t + apply_net(block[:, :1], net).T @ block / sum(sel)
        features = (t @ t[: descriptor["axis_neuron"]].T).ravel()
        net = fitting["nets"]["networks"][center]
        y = 0 if net is None else apply_net(features, net) + fitting["@variables"]["bias_atom_e"][center]
        if any(fitting.get("atom_ener") or []) and fitting["atom_ener"][center] is not None:
            y = y - apply_net(0 * features, net)
        if fitting["type"] in ("ener", "dos") and center in fitting["exclude_types"]:
            y = 0 * y
        out.append(atomic_property(y, t[:, 1:], fitting, model["@variables"]["out_bias"][0, center], center))
    out = np.array(out)
    out[[TYPE_MAP.index(symbol) in model["atom_exclude_types"] for symbol in atoms.symbols]] = 0
    return out


def atomic_property(y, rows, fitting, bias, center):
    """What the output of the net, 0 for a type without net, and the rows [M, 3] that turn with the structure mean."""
    if fitting["type"] == "dipole":
        return y * np.ones(len(rows)) @ rows
    if fitting["type"] != "polar":
        return y + bias
    factors = np.diag(y * np.ones(len(rows))) if fitting["fit_diag"] else np.reshape(y, (len(rows), -1))
    scale, constant = (fitting["@variables"][name].ravel()[center] for name in ("scale", "constant_matrix"))
    value = rows.T @ (factors + factors.T) @ rows / 2
    return scale * (value + (constant + bias.reshape(3, 3).trace() / 3) * np.eye(3))


STRUCTURES = [
    random_atoms("O2H4", [[4.0, 0, 0], [0.7, 4.4, 0], [0, -0.5, 4.2]], shortest=1.1),
    random_atoms("OH2", shortest=1.0),
]


# changes of a tree ---------------------------------------------------------------------------------------------------


def change(*keys, value):
    def apply(tree):
        part = tree["model"] if keys[0] != "backend" else tree
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return apply


def predict(model, atoms):
    system = System.from_atoms(atoms)
    (quantity,) = model.heads
    return model(system, Edges.build(system, model.cutoff))[quantity].detach().numpy()
