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
from ase_mlelec.heads import ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.model import Model

# file name -> (name here, values per atom or per frame, components)
LABELS = {"energy": ("energy", "frame", 1), "force": ("forces", "atom", 3), "virial": ("virial", "frame", 9),
          "atom_dos": ("ados", "atom", None), "dos": ("dos", "frame", None),
          "atomic_dipole": ("atomic_dipole", "atom", 3), "dipole": ("summed_dipole", "frame", 3),
          "atomic_polarizability": ("atomic_polarizability", "atom", 9),
          "polarizability": ("polarizability", "frame", 9)}


def read_data(path):
    """Read a deepmd npy system (a folder with type.raw and set.*/).

    Returns list of (Atoms, labels): labels is a dict of arrays with energy in eV, forces [N, 3] eV/Å, virial [3, 3] eV,
    ados [N, S], dos [S] states/eV and the others as they are in the files.  A ``dipole.npy`` holds the sum of the
    atomic vectors, not a dipole in e Å, and is called summed_dipole here.  A ``nopbc`` file means that the box is
    ignored.  Atomic files with the atoms of one type alone are filled up with zeros.  Atoms of type -1 do not occur in
    these data.

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
            columns[name] = _label(folder / f"{stem}.npy", per, width, n_frames, symbols)
    return [(Atoms(symbols, positions[i], cell=boxes[i], pbc=periodic),
             {name: values[i] for name, values in columns.items()}) for i in range(n_frames)]


def _rows(file, width, n_frames=None):
    array = np.load(file, allow_pickle=False).astype(float)
    n_rows = n_frames or (len(array) if array.ndim > 1 else array.size // width)
    if array.ndim == 0 or array.size != n_rows * width:
        raise ValueError(f"{file}: shape {array.shape} does not fit {n_frames or 'any number of'} frames of {width} "
                         "numbers; check it against type.raw")
    return array


def _label(file, per, width, n_frames, symbols):
    array = np.load(file, allow_pickle=False).astype(float)
    n_atoms, shape = len(symbols), {1: (), 9: (3, 3)}.get(width, (-1,))
    if file.stem.startswith("atomic") and array.ndim and array.size != n_frames * n_atoms * width:
        # the atoms of one type alone; only their number tells which
        kinds = [kind for kind in set(symbols) if array.size == n_frames * symbols.count(kind) * width]
        if len(kinds) == 1:
            full = np.zeros((n_frames, n_atoms, width))
            full[:, np.array(symbols) == kinds[0]] = array.reshape(n_frames, -1, width)
            array = full
    count = n_atoms if per == "atom" else 1
    if array.ndim == 0 or array.size % (n_frames * count) or (width and array.size != n_frames * count * width):
        raise ValueError(f"{file}: shape {array.shape} does not fit {n_frames} frames of {n_atoms} atoms"
                         + (f" and {width} components" if width else ""))
    return array.reshape(n_frames, *((n_atoms,) if per == "atom" else ()), *shape)


def read_model(path):
    """Import a DeepPot-SE model (descriptor se_e2_a) of energy, DOS, dipoles or polarizabilities from a ``.dp`` file.

    Returns Model in the precision of the file.  deepmd-kit stores neither the energy grid of a DOS nor the charges that
    belong to dipoles: set ``model.metadata`` (see DeepWannierCalculator) before a calculator is made of it.

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
    head = _new_head(len(species), se, tree, fitting, stored, widths=fitting["neuron"],
                     timestep=bool(fitting["resnet_dt"]))
    metadata = {"origin": f"deepmd-kit {stored.tree.get('version', '?')}"}
    if head.quantity == "dos":
        metadata["energy_grid_known"] = False
    model = Model(se, {head.quantity: head}, metadata)
    model.to(stored.array(descriptor["@variables"]["davg"]).dtype)
    with torch.no_grad():
        _load_descriptor(se, descriptor, stored)
        (_load_centres if hasattr(head, "centers") else _load_fitting)(head, tree, fitting, stored)
    return model.eval()


def _new_head(n_species, se, tree, fitting, stored, **options):
    if fitting["type"] == "ener":
        return ScalarHead(n_species, se.n_features, **options)
    if fitting["type"] == "dos":
        # deepmd-kit stores no energy grid: numbers 0 .. S-1 stand for it until the user sets the true one
        return SpectrumHead(n_species, se.n_features, np.arange(fitting["dim_out"], dtype=float), **options)
    _, shift = _scale_and_shift(n_species, tree, fitting, stored)
    centers = [k for k in range(n_species) if _has_net(fitting, k) or shift[k]]
    shape = n_species, se.n_features, se.widths[-1], centers
    if fitting["type"] == "dipole":
        return VectorHead(*shape, **options)
    return TensorHead(*shape, **options, full=not fitting["fit_diag"])


def _has_net(fitting, k):
    return fitting["nets"]["networks"][k] is not None and k not in fitting["exclude_types"]


def _refuse_unsupported(path, tree, descriptor, fitting):
    reasons = {
        f"model type {tree.get('type')}": tree.get("type") != "standard",
        f"descriptor {descriptor.get('type')}": descriptor.get("type") != "se_e2_a",
        f"fitting {fitting.get('type')}": fitting.get("type") not in ("ener", "dos", "dipole", "polar"),
        "an activation other than tanh": {descriptor.get("activation_function"),
                                          fitting.get("activation_function")} != {"tanh"},
        "excluded types or pairs": bool(
            descriptor.get("exclude_types") or tree.get("atom_exclude_types") or tree.get("pair_exclude_types")
            or (fitting.get("exclude_types") and fitting["type"] in ("ener", "dos"))),
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
                                   "energy, DOS, dipole and polarizability with tanh nets")


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


def _load_fitting(head, tree, fitting, stored):
    nets = head.nets
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


def _scale_and_shift(n_species, tree, fitting, stored):
    """Arrays [species], the factor of the nets' outputs and what is added to the diagonal of a polarizability.

    The file means scale (net + shift).  A model that was trained with TensorFlow means scale net + shift, with the
    entries counted over the types that have a net, and its converter does not change the numbers.
    """
    scale, shift = torch.ones(n_species, dtype=torch.float64), torch.zeros(n_species, dtype=torch.float64)
    if fitting["type"] != "polar":
        return scale, shift
    factor, constant = (stored.array(fitting["@variables"][name]).ravel().double()
                        for name in ("scale", "constant_matrix"))
    if stored.tree.get("backend") == "TensorFlow":
        chosen = [k for k in range(n_species) if _has_net(fitting, k)]
        scale[chosen], shift[chosen] = factor[:len(chosen)], constant[:len(chosen)]
        return scale, shift
    bias = stored.array(tree["@variables"]["out_bias"])[0].reshape(-1, 3, 3).double()
    return factor, factor * (constant + bias.diagonal(dim1=1, dim2=2).mean(dim=1)) * bool(fitting["shift_diag"])


def _load_centres(head, tree, fitting, stored):
    """Nets of a dipole or polarizability model; the factors of the species go into the last layers."""
    tensor, nets, variables = fitting["type"] == "polar", head.nets, fitting["@variables"]
    scale, shift = _scale_and_shift(head.n_species, tree, fitting, stored)
    for place, k in enumerate(head.centers):
        weight, bias = nets.last[place].weight.zero_(), nets.last[place].bias.zero_()
        if _has_net(fitting, k):
            *hidden, last = fitting["nets"]["networks"][k]["layers"]
            for layer, source in zip(nets.hidden[place], hidden):
                _load_layer(layer, source, stored)
            source = last["@variables"]
            w, b = stored.array(source["w"]), stored.array(source["b"]) if source["b"] is not None else 0
            columns = torch.cat([w, (b + stored.array(variables["bias_atom_e"])[k])[None]]) * scale[k]
            if tensor and head.full:        # F_ij with i <= j of the symmetric part of the file's matrix
                square = columns.reshape(-1, head.n_rows, head.n_rows)
                i, j = torch.triu_indices(head.n_rows, head.n_rows)
                columns = ((square + square.mT) / 2)[:, i, j]
            weight[int(tensor):], bias[int(tensor):] = columns[:-1].T, columns[-1]
        if tensor:
            bias[0] = shift[k]


def _load_layer(layer, source, stored):
    variables = source["@variables"]
    layer.weight.copy_(stored.array(variables["w"]))
    layer.bias.copy_(stored.array(variables["b"]) if variables["b"] is not None else torch.zeros_like(layer.bias))
    if layer.idt is not None:
        layer.idt.copy_(stored.array(variables["idt"]))
