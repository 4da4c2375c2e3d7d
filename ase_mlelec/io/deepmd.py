"""deepmd-kit: npy data directories, and models in its ``.dp`` container (HDF5 with JSON, readable without deepmd-kit).

The ``.pth`` and ``.pb`` containers hold code and are not opened; deepmd-kit's own converter makes a ``.dp`` of them.
"""
import json
from pathlib import Path

import h5py
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError
from ase.data import atomic_numbers

from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.model import Model

# file name -> (name here, values per atom or per frame, components)
LABELS = {"energy": ("energy", "frame", 1), "force": ("forces", "atom", 3), "virial": ("virial", "frame", 9),
          "atom_dos": ("ados", "atom", None), "dos": ("dos", "frame", None),
          "atomic_dipole": ("atomic_dipole", "atom", 3), "dipole": ("dipole", "frame", 3),
          "atomic_polarizability": ("atomic_polarizability", "atom", 9),
          "polarizability": ("polarizability", "frame", 9)}


def read_data(path):
    """Read a deepmd npy system (a folder with type.raw and set.*/).

    Returns list of (Atoms, labels): labels is a dict of arrays with energy in eV, forces [N, 3] eV/Å, virial [3, 3] eV,
    ados [N, S], dos [S] states/eV and the others as they are in the files.  A ``nopbc`` file means that the box is
    ignored.  Atoms of type -1 do not occur in these data.

    Raises ValueError for missing or mis-shaped files.
    """
    path = Path(path)
    symbols = _symbols(path)
    sets = sorted(path.glob("set.*"))
    if not sets:
        raise ValueError(f"{path}: no set.* folder; give the folder that holds type.raw and set.000")
    periodic = not (path / "nopbc").exists()
    return [frame for folder in sets for frame in _read_set(folder, symbols, periodic)]


def _symbols(path):
    if not (path / "type.raw").exists():
        raise ValueError(f"{path}: no type.raw; give a deepmd npy system folder")
    types = np.loadtxt(path / "type.raw", dtype=int, ndmin=1).ravel()
    if not (path / "type_map.raw").exists():
        raise ValueError(f"{path}: no type_map.raw; write one symbol per line so that types have a meaning")
    names = (path / "type_map.raw").read_text().split()
    unknown = [name for name in names if name not in atomic_numbers]
    if unknown or types.max() >= len(names) or types.min() < 0:
        raise ValueError(f"{path}: type_map.raw {names} does not name the chemical species of all types; correct it")
    return [names[t] for t in types]


def _read_set(folder, symbols, periodic):
    if not (folder / "coord.npy").exists():
        raise ValueError(f"{folder}: no coord.npy; the set is incomplete")
    positions = _rows(folder / "coord.npy", len(symbols) * 3).reshape(-1, len(symbols), 3)
    n_frames = len(positions)
    if periodic and not (folder / "box.npy").exists():
        raise ValueError(f"{folder}: no box.npy; add it, or an empty file 'nopbc' beside type.raw")
    boxes = _rows(folder / "box.npy", 9, n_frames).reshape(-1, 3, 3) if periodic else np.zeros((n_frames, 3, 3))
    columns = {}
    for stem, (name, per, width) in LABELS.items():
        if (folder / f"{stem}.npy").exists():
            columns[name] = _label(folder / f"{stem}.npy", per, width, n_frames, len(symbols))
    return [(Atoms(symbols, positions[i], cell=boxes[i], pbc=periodic),
             {name: values[i] for name, values in columns.items()}) for i in range(n_frames)]


def _rows(file, width, n_frames=None):
    array = np.load(file, allow_pickle=False).astype(float)
    n_rows = n_frames or (len(array) if array.ndim > 1 else array.size // width)
    if array.ndim == 0 or array.size != n_rows * width:
        raise ValueError(f"{file}: shape {array.shape} does not fit {n_frames or 'any number of'} frames of {width} "
                         "numbers; check it against type.raw")
    return array


def _label(file, per, width, n_frames, n_atoms):
    array = np.load(file, allow_pickle=False).astype(float)
    count = n_atoms if per == "atom" else 1
    if array.ndim == 0 or array.size % (n_frames * count) or (width and array.size != n_frames * count * width):
        raise ValueError(f"{file}: shape {array.shape} does not fit {n_frames} frames of {n_atoms} atoms"
                         + (f" and {width} components" if width else ""))
    shape = (n_frames, *((n_atoms,) if per == "atom" else ()), *{1: (), 9: (3, 3)}.get(width, (-1,)))
    return array.reshape(shape)


def read_model(path):
    """Import a DeepPot-SE energy or DOS model (descriptor se_e2_a) from a ``.dp`` file.

    Returns Model in the precision of the file.

    Raises CalculatorSetupError for other containers, descriptors or features that are not supported.
    """
    path = Path(path)
    if path.suffix != ".dp":
        raise CalculatorSetupError(f"{path.name} holds code and is not loaded; convert it once with deepmd-kit: "
                                   f"dp convert-backend {path.name} {path.stem}.dp")
    try:
        with h5py.File(path) as file:
            return _build_model(path, _Arrays(file, json.loads(file.attrs["json"])))
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CalculatorSetupError(f"{path} is truncated or not a deepmd-kit .dp model ({error}); "
                                   "convert or copy it again") from None


class _Arrays:
    """The nested dict of a .dp file; ``array`` follows a dataset name."""

    def __init__(self, file, tree):
        self.file, self.tree = file, tree

    def array(self, name):
        return torch.as_tensor(self.file[name][()])


def _build_model(path, stored):
    tree = stored.tree["model"]
    descriptor, fitting = tree["descriptor"], tree["fitting"]
    _refuse_unsupported(path, tree, descriptor, fitting)
    species = tree["type_map"]
    se = DeepPotSE(species, descriptor["rcut"], descriptor["rcut_smth"], descriptor["neuron"],
                   descriptor["axis_neuron"], descriptor["sel"], descriptor["type_one_side"])
    widths, timestep = fitting["neuron"], bool(fitting["resnet_dt"])
    if fitting["type"] == "ener":
        head = ScalarHead(len(species), se.n_features, widths, timestep)
    else:
        # deepmd-kit stores no energy grid: numbers 0 .. S-1 stand for it until the user sets the true one
        head = SpectrumHead(len(species), se.n_features, np.arange(fitting["dim_out"], dtype=float), widths, timestep)
    first = stored.array(descriptor["@variables"]["davg"])
    model = Model(se, {head.quantity: head},
                  {"origin": f"deepmd-kit {stored.tree.get('version', '?')}", "energy_grid_known": False})
    model.to(first.dtype)
    with torch.no_grad():
        _load_descriptor(se, descriptor, stored)
        _load_fitting(head.nets, tree, fitting, stored)
    return model.eval()


def _refuse_unsupported(path, tree, descriptor, fitting):
    reasons = {
        f"model type {tree.get('type')}": tree.get("type") != "standard",
        f"descriptor {descriptor.get('type')}": descriptor.get("type") != "se_e2_a",
        f"fitting {fitting.get('type')}": fitting.get("type") not in ("ener", "dos"),
        "an activation other than tanh": {descriptor.get("activation_function"),
                                          fitting.get("activation_function")} != {"tanh"},
        "excluded types or pairs": bool(descriptor.get("exclude_types") or fitting.get("exclude_types")
                                        or tree.get("atom_exclude_types") or tree.get("pair_exclude_types")),
        "frame or atomic parameters": bool(fitting.get("numb_fparam") or fitting.get("numb_aparam")
                                           or fitting.get("dim_case_embd")),
        "spin": bool(descriptor.get("spin") or fitting.get("spin")),
        "a time step in the embedding nets": bool(descriptor.get("resnet_dt")),
        "atomic energies in vacuum": any(energy is not None for energy in fitting.get("atom_ener") or []),
        "types that are no chemical symbols": not set(tree["type_map"]) <= atomic_numbers.keys(),
        "mixed types": bool(fitting.get("mixed_types")),
        "env_protection": bool(descriptor.get("env_protection")),
        "an exponential switch": bool(descriptor.get("env_mat", {}).get("use_exp_switch")),
        "tot_ener_zero": bool(fitting.get("tot_ener_zero")),
    }
    found = [reason for reason, present in reasons.items() if present]
    if found:
        raise CalculatorSetupError(f"{path}: {', '.join(found)} cannot be imported; supported are se_e2_a models of "
                                   "energy and DOS with tanh nets")


def _load_descriptor(se, descriptor, stored):
    mean, scale = (stored.array(descriptor["@variables"][name]) for name in ("davg", "dstd"))
    # the slot axis is redundant: every slot of a centre's species has the same statistics, every direction as well
    if (mean != mean[:, :1]).any() or mean[..., 1:].any() or (scale != scale[:, :1, [0, 1, 1, 1]]).any():
        raise CalculatorSetupError("davg or dstd differ between slots or directions, which se_e2_a cannot have; "
                                   "the file is damaged: convert or copy it again")
    se.mean.copy_(mean[:, 0, 0])
    se.scale.copy_(scale[:, 0, :2])
    for net, source in zip(se.embedding.nets, descriptor["embeddings"]["networks"]):
        for layer, layer_source in zip(net, source["layers"]):
            _load_layer(layer, layer_source, stored)


def _load_fitting(nets, tree, fitting, stored):
    for k, source in enumerate(fitting["nets"]["networks"]):
        *hidden, last = source["layers"]
        for layer, layer_source in zip(nets.hidden[k], hidden):
            _load_layer(layer, layer_source, stored)
        nets.last[k].weight.copy_(stored.array(last["@variables"]["w"]).T)
        if last["@variables"]["b"] is not None:
            nets.last[k].bias.copy_(stored.array(last["@variables"]["b"]))
    nets.bias.copy_(stored.array(tree["@variables"]["out_bias"])[0])
    if fitting["@variables"].get("bias_atom_e"):
        nets.bias += stored.array(fitting["@variables"]["bias_atom_e"]).reshape(nets.bias.shape)


def _load_layer(layer, source, stored):
    variables = source["@variables"]
    layer.weight.copy_(stored.array(variables["w"]))
    layer.bias.copy_(stored.array(variables["b"]) if variables["b"] is not None else torch.zeros_like(layer.bias))
    if layer.idt is not None:
        layer.idt.copy_(stored.array(variables["idt"]))
