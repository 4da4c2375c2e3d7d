"""Models written in deepmd-kit's ``.dp`` container, where the architecture exists there (descriptor ``se_e2_a``).

The layout is that of deepmd-kit 3: a nested dict in JSON, an attribute of the root, in which names of datasets stand for
arrays. All arrays are in double precision.
"""

import json
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.atomic_write import replacing
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.descriptors.embedding import EmbeddingNets
from ase_mlelec.heads import TensorHead, VectorHead
from ase_mlelec.heads.base import FittingNets
from ase_mlelec.heads.vector import CenterHead
from ase_mlelec.io.hdf5_write import new_file
from ase_mlelec.model import Model
from ase_mlelec.model_file.upgrade import FORMAT_VERSION
from ase_mlelec.quantities import QUANTITIES

RETRAIN = "train with [descriptor] l_max = 1 and n_basis = 0"
ROOM = 1.5  # slots for neighbors, in units of the largest number of neighbors in the training data


class Layer(NamedTuple):
    """Arrays of a layer, float64: weights [n_in, n_out], constants [n_out], time steps [n_out] or None."""

    weights: Tensor
    constants: Tensor
    steps: Tensor | None


def write_model(
    path: str | PathLike,
    model: Model,
    *,
    quantity: str | None = None,
    sel: Sequence[int] | None = None,
    without_core: bool = False,
) -> tuple[int, ...]:
    """Write one quantity of a model for deepmd-kit.

    Parameters
    ----------
    path : str or Path
        Name ending in ``.dp``.
    model : Model
    quantity : str, optional
        Name of a head: energy, DOS, dipole or polarizability; by default the energy, or the only quantity of the model.
    sel : sequence of int, optional
        Largest number of neighbors of each species, of which deepmd-kit drops the farthest if there are more. By default
        that of an imported model, or 1.5 times the largest number of neighbors in the training data.
    without_core : bool
        Leave out what only changes energies far from the training data: repulsive core, correction of isolated atoms.

    Returns
    -------
    tuple of int
        ``sel`` of the file.

    Raises
    ------
    ValueError
        For a model, or parts of it, that deepmd-kit does not have, with the reason in one line.

    Notes
    -----
    Values of the file equal those of ``model`` to rounding. Error bars and training ranges are not in the file.

    References
    ----------
    Zhang et al. 2018 (NeurIPS), Eqs. (8)-(13); storage conventions of deepmd-kit 3.
    """
    name = quantity or ("energy" if "energy" in model.heads else next(iter(model.heads)))
    if name not in model.heads:
        raise ValueError(f"quantity: got '{name}', the model has {', '.join(model.heads)}; give one of these")
    found = list(_obstacles(model, name, without_core))
    if found:
        remedies = "; ".join(dict.fromkeys(remedy for _, remedy in found))
        raise ValueError(f"deepmd-kit has no {', no '.join(what for what, _ in found)}; {remedies}")
    se: Any = model.descriptor_of(name)
    slots = _slots(model, name, sel)
    with torch.no_grad():
        tree = _tree(model, name, _descriptor(se, slots), _Fitting(model.heads[name], se).tree())
    with replacing(path) as partial, new_file(partial) as file:
        file.attrs["json"] = json.dumps(_stored(file, tree))
    return slots


def _obstacles(model: Model, name: str, without_core: bool) -> Iterator[tuple[str, str]]:
    """(what deepmd-kit does not have, remedy) of everything that is in the way."""
    head, se = model.heads[name], model.descriptor_of(name)
    nets = getattr(head, "nets", None)
    if name not in QUANTITIES or not QUANTITIES[name].deepmd or not isinstance(nets, FittingNets):
        yield f"quantity {name}", "export another quantity (--quantity)"
        return
    if model.evaluation_only or nets.shift is None:
        yield "model with rearranged arrays", "give the model itself, no copy for evaluation"
        return
    if not isinstance(se, DeepPotSE):
        yield f"descriptor {type(se).__name__}", RETRAIN
        return
    if se.l_max > 1:
        yield f"angular channels l_max = {se.l_max}", RETRAIN
    if not isinstance(se.embedding, EmbeddingNets):
        yield f"Chebyshev series of the distance (n_basis = {se.n_basis})", RETRAIN
    if bool(se.mean.any()) and any(kind == "none" for *_, kind in se.excluded_pairs):
        yield "excluded pairs without slots", "train without excluded pairs"
    if name == "energy":
        if model.core is not None and not without_core:
            yield "repulsive core", "leave it out by without_core (--without-core), or train with [energy] core = false"
        if getattr(head, "lone", False) and not without_core:
            yield (
                "correction of isolated atoms",
                'leave it out by without_core (--without-core), or train with E0 = "average"',
            )
        if model.long_range is not None:
            yield "long range of Wannier centroids", "train without [long_range]"
    first = nets.hidden[0]
    if len(first) and first[0].repeat and (bool(nets.shift.any()) or bool((nets.inverse != 1).any())):
        yield "standardized features before a layer with a shortcut", "train with another width of the first layer"
    if getattr(head, "square_root", False):
        yield "square of the output of a net", "train with [dos] square_root = false"
    if isinstance(head, TensorHead) and any(bool(last.weight[0].any()) for last in nets.last):
        yield "isotropic part that depends on the environment", "use the model here"


def _slots(model, name, sel):
    """Numbers of slots of every species in the file."""
    se: Any = model.descriptor_of(name)
    own = tuple(se.sel)
    if sel is None and bool(se.mean.any()):  # empty slots count: they must remain as many as they were
        return own
    if sel is None:
        limit = model.range_of(name)
        most = 0 if limit is None else int((limit.of_neighbors.middle + 1 / limit.of_neighbors.inverse).max())
        return tuple(max(n, int(ROOM * most) + 1) for n in own)
    sel = tuple(sel) * (len(own) if len(sel) == 1 else 1)
    if len(sel) != len(own) or min(sel) < 1:
        raise ValueError(f"sel: got {list(sel)}, need a number of neighbors for each of {', '.join(se.species)}")
    if sel != own and bool(se.mean.any()):
        raise ValueError(
            f"sel: got {list(sel)}, but empty slots contribute to this model, which has {list(own)}; leave it out"
        )
    return sel


# parts of the tree -------------------------------------------------------------------------------------------------


def _tree(model, name, descriptor, fitting):
    """The nested dict of a file, with arrays in place."""
    head, species = model.heads[name], list(model.species)
    n, bias = len(species), head.nets.bias.double()
    if isinstance(head, CenterHead):
        bias = torch.zeros(n, 3 ** len(QUANTITIES[name].shape))
    excluded = _excluded(model.descriptor_of(name))
    whole = {
        "@class": "Model",
        "type": "standard",
        "@version": 2,
        "type_map": species,
        "atom_exclude_types": [],
        "pair_exclude_types": excluded["empty"],
        "rcond": None,
        "preset_out_bias": None,
        "descriptor": descriptor,
        "fitting": fitting,
        "@variables": {"out_bias": bias[None], "out_std": torch.ones_like(bias)[None]},
    }
    script = {
        "type_map": species,
        "pair_exclude_types": excluded["empty"],
        "descriptor": _options(descriptor, "rcut rcut_smth sel neuron axis_neuron type_one_side exclude_types"),
        "fitting_net": _options(fitting, "neuron") | _names_of_training(fitting),
    }
    tree: dict[str, Any] = {"software": "ase-mlelec", "version": f"format {FORMAT_VERSION}", "backend": "dpmodel"}
    tree |= {"model": whole, "model_def_script": script}
    shortest = model.metadata.get("shortest_distance_A")
    return tree | ({"@variables": {"min_nbor_dist": np.float64(shortest)}} if shortest else {})


def _options(part, names):
    """Options of a part as a training input has them."""
    return {key: part[key] for key in (*names.split(), "type", "resnet_dt", "activation_function", "precision")}


def _names_of_training(fitting):
    """Options of a fitting net that have other names in a training input."""
    if fitting["type"] == "dos":
        return {"numb_dos": fitting["dim_out"]}
    if fitting["type"] == "ener":
        return {}
    chosen = [k for k in range(fitting["ntypes"]) if k not in fitting["exclude_types"]]
    return {"sel_type": chosen} | ({"fit_diag": fitting["fit_diag"]} if fitting["type"] == "polar" else {})


def _excluded(se):
    """Pairs of types by who excludes them: descriptor ("taken") or model ("empty"); all the same where no mean is."""
    index = se.species.index
    found: dict[str, list] = {"taken": [], "empty": [], "none": []}
    for a, b, kind in se.excluded_pairs:
        found[kind].append([index(a), index(b)])
    return found | {"taken": found["taken"] + found["none"]}


def _descriptor(se, slots):
    """Descriptor with ``slots``.

    deepmd-kit divides sums over neighbors by the number of slots. Entries that are larger by the factor c, by which there
    are more slots, leave the features as they are; the first layers take the factor back from their input.
    """
    n, c = len(se.species), sum(slots) / sum(se.sel)
    scale = se.scale.double() / c
    mean, std = torch.zeros(n, sum(slots), 4).double(), scale[:, None, [0, 1, 1, 1]].expand(n, sum(slots), 4)
    mean[..., 0] = se.mean.double()[:, None]
    nets = []
    for net in se.embedding.nets:
        layers = _hidden(net)
        if c != 1 and net[0].repeat:
            raise ValueError(
                "sel: the first layer of the embedding has a shortcut; leave sel out, or give that of training"
            )
        layers[0] = layers[0]._replace(weights=layers[0].weights / c)
        nets.append({"@class": "EmbeddingNetwork", "@version": 2, "in_dim": 1} | _net(se, layers) | {"bias": True})
    one_side = se.embedding.one_side
    return {
        "@class": "Descriptor",
        "type": "se_e2_a",
        "@version": 2,
        "rcut": se.cutoff,
        "rcut_smth": se.smooth,
        "sel": list(slots),
        "axis_neuron": se.n_axis,
        **_shared(se),
        "trainable": True,
        "type_one_side": one_side,
        "exclude_types": _excluded(se)["taken"],
        "env_protection": se.protection,
        "set_davg_zero": False,
        "spin": None,
        "env_mat": {"rcut": se.cutoff, "rcut_smth": se.smooth, "protection": se.protection, "use_exp_switch": False},
        "embeddings": _collection("embedding_network", nets, n, ndim=1 if one_side else 2),
        "@variables": {"davg": mean, "dstd": std},
        "type_map": list(se.species),
    }


class _Fitting:
    """Fitting nets of a head, one for every species, whose statistics are in their layers."""

    def __init__(self, head, se):
        self.head, self.se = head, se
        self.type = QUANTITIES[head.quantity].deepmd
        self.n_species = len(se.species)
        self.centers = head.centers if isinstance(head, CenterHead) else tuple(range(self.n_species))
        self.isotropic = torch.zeros(self.n_species).double()

    def tree(self):
        layers = {k: self._layers(place) for place, k in enumerate(self.centers)}
        zero = [Layer(*(None if array is None else 0 * array for array in layer)) for layer in layers[self.centers[0]]]
        n_out = len(zero[-1].constants)
        nets = [layers.get(k, zero) for k in range(self.n_species)]
        kinds = {"@class": "FittingNetwork", "@version": 1, "in_dim": self.se.n_features, "out_dim": n_out}
        statistics = ("case_embd", "fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
        return {
            "@class": "Fitting",
            "type": self.type,
            "@version": 4,
            "var_name": {"ener": "energy"}.get(self.type, self.type),
            "ntypes": self.n_species,
            "dim_descrpt": self.se.n_features,
            **_shared(self.head),
            "numb_fparam": 0,
            "numb_aparam": 0,
            "dim_case_embd": 0,
            "default_fparam": None,
            "rcond": None,
            "mixed_types": False,
            "exclude_types": [k for k in range(self.n_species) if k not in self.centers],
            "nets": _collection(
                "fitting_network", [kinds | _net(self.head, own) | {"bias_out": True} for own in nets], self.n_species
            ),
            "@variables": {"bias_atom_e": torch.zeros(self.n_species, n_out).double()} | dict.fromkeys(statistics),
            "type_map": list(self.se.species),
            "tot_ener_zero": False,
            "trainable": [True] * (len(self.head.widths) + 1),
            "layer_name": None,
            "use_aparam_as_mask": False,
            "spin": None,
        } | self._of_type(n_out)

    def _of_type(self, n_out):
        if self.type in ("ener", "dos"):
            return {"dim_out": n_out, "atom_ener": None}
        if isinstance(self.head, VectorHead):
            return {"embedding_width": self.se.n_frame, "r_differentiable": True, "c_differentiable": True}
        constants = {"scale": torch.ones(self.n_species, 1).double(), "constant_matrix": self.isotropic}
        options = {
            "@version": 5,
            "embedding_width": self.se.n_frame,
            "fit_diag": not self.head.full,
            "shift_diag": True,
        }
        zero = torch.zeros(self.n_species, n_out).double()
        return options | {"@variables": {"bias_atom_e": zero} | constants}

    def _layers(self, place):
        """Layers of the net of a center."""
        nets = self.head.nets
        last = nets.last[place]
        layers = [*_hidden(nets.hidden[place]), Layer(last.weight.double().T, last.bias.double(), None)]
        weights = nets.inverse[place].double()[:, None] * layers[0].weights
        constants = layers[0].constants - nets.shift[place].double() @ weights
        layers[0] = layers[0]._replace(weights=weights, constants=constants)
        scale, of_head = nets.scale.double(), isinstance(self.head, CenterHead)
        constants = layers[-1].constants * scale + (nets.bias[place].double() if of_head else 0)
        layers[-1] = layers[-1]._replace(weights=layers[-1].weights * scale, constants=constants)
        if isinstance(self.head, TensorHead):
            self.isotropic[self.centers[place]] = layers[-1].constants[0]
            layers[-1] = self._products(layers[-1])
        return layers

    def _products(self, last):
        """Outputs that multiply products of rows: the diagonal, or all of a symmetric matrix."""
        if self.head.full:
            index = self.head.index.flatten()
            return Layer(last.weights[:, index], last.constants[index], None)
        return Layer(last.weights[:, 1:], last.constants[1:], None)


# nets and arrays ---------------------------------------------------------------------------------------------------


def _hidden(net):
    """list of the hidden layers of a DenseNet."""
    steps = (None if layer.idt is None else layer.idt.double() for layer in net)
    return [Layer(layer.weight.double(), layer.bias.double(), step) for layer, step in zip(net, steps)]


def _shared(owner):
    """Options of a descriptor or a head that its nets have too."""
    return {
        "neuron": list(owner.widths),
        "resnet_dt": owner.timestep,
        "activation_function": owner.activation,
        "precision": "float64",
    }


def _net(owner, layers):
    hidden = len(owner.widths)
    described = [
        {
            "@class": "Layer",
            "@version": 2,
            "bias": True,
            "use_timestep": layer.steps is not None,
            "activation_function": owner.activation if k < hidden else "none",
            "resnet": k < hidden,
            "precision": "float64",
            "trainable": True,
            "@variables": {"w": layer.weights, "b": layer.constants, "idt": layer.steps},
        }
        for k, layer in enumerate(layers)
    ]
    return _shared(owner) | {"layers": described}


def _collection(kind, nets, n_types, ndim=1):
    return {
        "@class": "NetworkCollection",
        "@version": 1,
        "ndim": ndim,
        "ntypes": n_types,
        "network_type": kind,
        "networks": nets,
    }


def _stored(file, value):
    """``value`` with its arrays replaced by the names of datasets, into which they are written."""
    if isinstance(value, dict):
        return {key: _stored(file, entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stored(file, entry) for entry in value]
    if not isinstance(value, (Tensor, np.float64)):
        return value
    name, array = f"variable_{len(file):04d}", value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    file.create_dataset(name, data=array, track_times=False)
    return f"/{name}"
