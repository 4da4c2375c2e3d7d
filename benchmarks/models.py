"""The models and structures both programs are given: random weights in deepmd-kit's .dp format; water, silicon."""

import itertools
import json

import h5py
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

EMBEDDING = [25, 50, 100]
WATER = dict(species=["O", "H"], cutoff=6.0, smooth=0.5, sel=[46, 92], mean=0.05, scale=(0.13, 0.08), closest=0.85)
SILICON = dict(species=["Si"], cutoff=6.0, smooth=1.8, sel=[90], mean=0.06, scale=(0.12, 0.08), closest=1.9)
MODELS = {
    "water_small": dict(WATER, quantity="ener", n_axis=4, fitting=[60, 60, 60], n_out=1),
    "water_large": dict(WATER, quantity="ener", n_axis=16, fitting=[240, 240, 240], n_out=1),
    "water_dipole": dict(WATER, quantity="dipole", n_axis=4, fitting=[60, 60, 60], n_out=EMBEDDING[-1]),
    "silicon_dos": dict(SILICON, quantity="dos", n_axis=8, fitting=[120, 120, 120], n_out=250),
}


def water(n):
    """n^3 molecules at 1 g/cm^3, randomly turned, on a simple cubic lattice: as many neighbors as in the liquid."""
    rng = np.random.default_rng(n)
    atoms, spacing = Atoms(), 3.105
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.euler_rotate(*rng.uniform(0, 360, 3), center="COM")
        one.translate(np.array(place) * spacing - one.get_center_of_mass())
        atoms += one
    return Atoms(atoms.symbols, atoms.positions, cell=[n * spacing] * 3, pbc=True)


def silicon(*repeat):
    """The diamond crystal with thermal disorder."""
    atoms = bulk("Si", cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=sum(repeat))
    return atoms


def write_model(path, spec, seed=0):
    """Write a DeepPot-SE model of energy, DOS or dipole (of oxygen) with random weights, readable by both programs."""
    with h5py.File(path, "w") as file:
        store = _Store(file, np.random.default_rng(seed))
        tree = {
            "software": "deepmd-kit",
            "version": "3.2.0",
            "backend": "none",
            "model": _model(spec, store),
            "model_def_script": _script(spec),
            # what deepmd-kit's compression otherwise looks for in the training data
            "@variables": {"min_nbor_dist": store.put(np.array(spec["closest"]))},
        }
        file.attrs["json"] = json.dumps(tree)


def adapt(path, closest):
    """Make a .dp file of somebody else's weights mean the same to both programs, and to deepmd-kit's compression.

    deepmd-kit's TensorFlow backend multiplies with out_std, which its others only store, and its compression drops
    out_bias: the former becomes one, the latter part of the last layer.
    """
    with h5py.File(path, "r+") as file:
        tree = json.loads(file.attrs["json"])
        model = tree["model"]
        bias, std = (file[model["@variables"][name]] for name in ("out_bias", "out_std"))
        for k, net in enumerate(model["fitting"]["nets"]["networks"]):
            file[net["layers"][-1]["@variables"]["b"]][...] += bias[0, k]
        bias[...], std[...] = 0, 1
        file["min_nbor_dist"] = np.array(closest)
        tree["@variables"]["min_nbor_dist"] = "/min_nbor_dist"
        file.attrs["json"] = json.dumps(tree)


class _Store:
    """Puts arrays into the file; the tree holds their names."""

    def __init__(self, file, rng):
        self.file, self.rng = file, rng

    def put(self, array):
        name = f"/variable_{len(self.file):04d}"
        self.file[name] = array
        return name

    def layer(self, n_in, n_out, resnet_dt, last=False):
        timestep = resnet_dt and n_in == n_out
        arrays = {
            "w": self.rng.normal(0, (n_in + n_out) ** -0.5, (n_in, n_out)),
            "b": self.rng.normal(0, 1, n_out),
            "idt": self.rng.normal(0.1, 0.001, n_out) if timestep else None,
        }
        return {
            "@class": "Layer",
            "@version": 2,
            "bias": True,
            "use_timestep": timestep,
            "activation_function": "none" if last else "tanh",
            "resnet": not last,
            "precision": "float64",
            "trainable": True,
            "@variables": {name: None if value is None else self.put(value) for name, value in arrays.items()},
        }


def _model(spec, store):
    n_species, width = len(spec["species"]), 3 if spec["quantity"] == "dipole" else spec["n_out"]
    return {
        "@class": "Model",
        "@version": 2,
        "type": "standard",
        "type_map": spec["species"],
        "atom_exclude_types": [],
        "pair_exclude_types": [],
        "rcond": None,
        "preset_out_bias": None,
        "@variables": {
            "out_bias": store.put(np.zeros((1, n_species, width))),
            "out_std": store.put(np.ones((1, n_species, width))),
        },
        "descriptor": _descriptor(spec, store),
        "fitting": _fitting(spec, store),
    }


def _descriptor(spec, store):
    n_species, slots = len(spec["species"]), sum(spec["sel"])
    mean, scale = np.zeros((n_species, slots, 4)), np.full((n_species, slots, 4), spec["scale"][1])
    mean[:, :, 0], scale[:, :, 0] = spec["mean"], spec["scale"][0]
    nets = [
        {
            "@class": "EmbeddingNetwork",
            "@version": 2,
            "in_dim": 1,
            "neuron": EMBEDDING,
            "activation_function": "tanh",
            "resnet_dt": False,
            "bias": True,
            "precision": "float64",
            "layers": [store.layer(a, b, False) for a, b in zip([1, *EMBEDDING], EMBEDDING)],
        }
        for _ in range(n_species)
    ]
    return {
        "@class": "Descriptor",
        "@version": 2,
        **_descriptor_options(spec),
        "embeddings": _collection(nets, n_species, "embedding"),
        "env_mat": {"rcut": spec["cutoff"], "rcut_smth": spec["smooth"], "protection": 0.0, "use_exp_switch": False},
        "@variables": {"davg": store.put(mean), "dstd": store.put(scale)},
        "type_map": spec["species"],
        "spin": None,
    }


def _descriptor_options(spec):
    return {
        "type": "se_e2_a",
        "rcut": spec["cutoff"],
        "rcut_smth": spec["smooth"],
        "sel": spec["sel"],
        "neuron": EMBEDDING,
        "axis_neuron": spec["n_axis"],
        "resnet_dt": False,
        "set_davg_zero": False,
        "activation_function": "tanh",
        "precision": "float64",
        "exclude_types": [],
        "env_protection": 0.0,
        "trainable": True,
        "type_one_side": True,
    }


def _fitting(spec, store):
    n_species, n_features = len(spec["species"]), EMBEDDING[-1] * spec["n_axis"]
    sizes = [n_features, *spec["fitting"]]
    nets = [
        {
            "@class": "FittingNetwork",
            "@version": 1,
            "in_dim": n_features,
            "out_dim": spec["n_out"],
            "neuron": spec["fitting"],
            "activation_function": "tanh",
            "resnet_dt": True,
            "precision": "float64",
            "bias_out": True,
            "layers": [
                *(store.layer(a, b, True) for a, b in itertools.pairwise(sizes)),
                store.layer(sizes[-1], spec["n_out"], False, last=True),
            ],
        }
        for _ in range(n_species)
    ]
    name = {"ener": "energy"}.get(spec["quantity"], spec["quantity"])
    options = {"dim_out": spec["n_out"], "exclude_types": [], "atom_ener": [] if spec["quantity"] == "ener" else None}
    if spec["quantity"] == "dipole":
        options = {
            "embedding_width": EMBEDDING[-1],
            "r_differentiable": True,
            "c_differentiable": True,
            "exclude_types": list(range(1, n_species)),
        }
    return {
        "@class": "Fitting",
        "@version": 4,
        "type": spec["quantity"],
        "var_name": name,
        "ntypes": n_species,
        "dim_descrpt": n_features,
        "neuron": spec["fitting"],
        "resnet_dt": True,
        "numb_fparam": 0,
        "numb_aparam": 0,
        "dim_case_embd": 0,
        "default_fparam": None,
        "activation_function": "tanh",
        "precision": "float64",
        "mixed_types": False,
        "nets": _collection(nets, n_species, "fitting"),
        "rcond": None,
        "@variables": {
            "bias_atom_e": store.put(np.zeros((n_species, spec["n_out"]))),
            "case_embd": None,
            "fparam_avg": None,
            "fparam_inv_std": None,
            "aparam_avg": None,
            "aparam_inv_std": None,
        },
        "type_map": spec["species"],
        "tot_ener_zero": False,
        "trainable": [True] * (len(sizes)),
        "layer_name": None,
        "use_aparam_as_mask": False,
        "spin": None,
        **options,
    }


def _collection(nets, n_species, kind):
    return {
        "@class": "NetworkCollection",
        "@version": 1,
        "ndim": 1,
        "ntypes": n_species,
        "network_type": f"{kind}_network",
        "networks": nets,
    }


def _script(spec):
    fitting = {
        "type": spec["quantity"],
        "neuron": spec["fitting"],
        "resnet_dt": True,
        "precision": "float64",
        "activation_function": "tanh",
        "seed": 1,
    }
    if spec["quantity"] == "dos":
        fitting["numb_dos"] = spec["n_out"]
    if spec["quantity"] == "dipole":
        fitting["sel_type"] = [0]
    return {"type_map": spec["species"], "descriptor": {**_descriptor_options(spec), "seed": 1}, "fitting_net": fitting}
