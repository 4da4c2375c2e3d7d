"""deepmd-kit models in its ``.dp`` container, built as ours."""

from os import PathLike
from pathlib import Path

import h5py
import numpy as np
import torch
from ase.calculators.calculator import CalculatorSetupError

from ase_mlelec.checks import printable
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.io.deepmd.stored import (
    Stored,
    activation,
    counts,
    elements,
    number,
    pairs,
    part,
    refuse_unsupported,
    types,
)
from ase_mlelec.io.hdf5 import check_heaps
from ase_mlelec.model import Model

LONGEST = 100.0  # Å, of a cutoff


def read_model(path: str | PathLike) -> Model:
    """Import a DeepPot-SE model (descriptor se_e2_a) of energy, DOS, dipoles or polarizabilities from a ``.dp`` file.

    Returns
    -------
    Model
        In the precision of the file. deepmd-kit stores neither the energy grid of a DOS nor the charges that belong to
        dipoles: set ``model.metadata`` (see DeepWannierCalculator) before a calculator is made of it. How many
        neighbors of each species deepmd-kit keeps (``sel``; it drops the farthest of more) is
        ``model.metadata["most_neighbors"]``, and the calculators warn where there are more.

    Raises
    ------
    CalculatorSetupError
        For other containers, damaged files, and models, descriptors or features that are not supported.
    """
    path = Path(path)
    if path.suffix != ".dp":
        raise CalculatorSetupError(
            f"{path.name} holds code and is not loaded; convert it once with deepmd-kit: "
            f"dp convert-backend {path.name} {path.stem}.dp"
        )
    if not path.is_file():
        raise CalculatorSetupError(f"{path}: no such file; give a .dp model")
    try:
        check_heaps(path)
        with h5py.File(path) as file:
            return _build_model(path, Stored(file))
    except CalculatorSetupError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything within HDF5, h5py, torch and here
        cause = printable(str(error).removeprefix(f"{path}: ")) or type(error).__name__
        raise CalculatorSetupError(
            f"{path} is truncated or not a deepmd-kit .dp model ({cause}); convert or copy it again"
        ) from None


def _build_model(path, stored):
    refuse_unsupported(path, stored.tree)
    tree = stored.tree["model"]
    fitting, species = tree["fitting"], elements(part(tree, "type_map", list))
    se = _read_descriptor(path, stored, tree, species)
    options = {"widths": counts(fitting, "neuron"), "timestep": part(fitting, "resnet_dt", bool)}
    options["activation"] = activation(fitting["activation_function"])
    head = _Fitting(stored, tree, se).head(options)
    program, version = (stored.tree.get(key, usual) for key, usual in (("software", "deepmd-kit"), ("version", "?")))
    metadata = {"origin": printable(f"{program} {version}", 60), "most_neighbors": dict(zip(species, se.sel))}
    if head.quantity == "dos":
        metadata["energy_grid_known"] = False
    model = Model(se, {head.quantity: head}, metadata)
    return model.to(torch.float64 if _is_double(stored, tree) else torch.float32).eval()


def _is_double(stored, tree):
    nets = [*tree["descriptor"]["embeddings"]["networks"], *tree["fitting"]["nets"]["networks"]]
    return stored.is_double(tree["descriptor"]["@variables"]["davg"]) or any(
        stored.is_double_net(net) for net in nets if net is not None
    )


@torch.no_grad()
def _read_descriptor(path, stored, tree, species):
    """DeepPotSE in float64."""
    source, n = tree["descriptor"], len(species)
    widths, sel = counts(source, "neuron"), counts(source, "sel", least=0)
    n_axis, one_side, timestep = (
        part(source, *key) for key in (("axis_neuron", int), ("type_one_side", bool), ("resnet_dt", bool))
    )
    if len(sel) != n or not 0 < sum(sel) or not 0 < n_axis <= widths[-1]:
        raise ValueError(f"sel {sel}, axis_neuron {n_axis} and neuron {widths} do not fit {n} types")
    mean, scale = _statistics(path, stored, source, n, sum(sel))
    nets = part(part(source, "embeddings", dict), "networks", list)
    if len(nets) != (n if one_side else n * n):
        raise ValueError(f"{len(nets)} embedding nets for {n} types")
    layers = [stored.layers(net, source["activation_function"], 1, widths) for net in nets]
    se = DeepPotSE(
        species,
        number(source, "rcut", 0, LONGEST),
        number(source, "rcut_smth", 0),
        widths,
        n_axis,
        sel,
        one_side,
        timestep=timestep,
        activation=activation(source["activation_function"]),
        protection=number({"env_protection": 0.0} | source, "env_protection", 0),
        excluded_pairs=_excluded_pairs(stored, tree, species),
    ).double()
    se.mean.copy_(mean)
    se.scale.copy_(scale)
    for net, sources in zip(se.embedding.nets, layers):
        _fill(stored, net, sources)
    return se


def _statistics(path, stored, source, n, n_slots):
    """Mean [n] of s and scale [n, 2] of the radial and angular entries.

    The slot axis is redundant: every slot of a center's species has the same statistics, every direction as well.
    """
    names = part(source, "@variables", dict)
    mean, scale = (stored.array(names[name], (n, n_slots, 4)) for name in ("davg", "dstd"))
    if (mean != mean[:, :1]).any() or mean[..., 1:].any() or (scale != scale[:, :1, [0, 1, 1, 1]]).any():
        raise CalculatorSetupError(
            f"{path}: davg or dstd differ between slots or directions, which se_e2_a cannot "
            "have; the file is damaged: convert or copy it again"
        )
    if not (scale > 0).all():
        raise ValueError("dstd is not positive")
    return mean[:, 0, 0], scale[:, 0, :2]


def _excluded_pairs(stored, tree, species):
    """Pairs that the model excludes leave slots empty, pairs that the descriptor excludes take their slots.

    A descriptor that was trained with TensorFlow has no slots for them at all, which its converter does not tell.
    """
    own = "none" if stored.tree.get("backend") == "TensorFlow" else "taken"
    kinds = dict.fromkeys(pairs(tree["descriptor"], "exclude_types", len(species)), own)
    kinds |= dict.fromkeys(pairs(tree, "pair_exclude_types", len(species)), "empty")
    return [(species[a], species[b], kind) for (a, b), kind in sorted(kinds.items())]


def _fill(stored, net, sources):
    """Copy the hidden layers into a DenseNet."""
    for layer, source in zip(net, sources):
        layer.weight.copy_(source["w"])
        layer.bias.copy_(0 * layer.bias if source["b"] is None else source["b"])
        if layer.idt is not None:
            layer.idt.copy_(source["idt"])
        elif source["idt"] is not None and stored.tree.get("backend") != "TensorFlow":
            # TensorFlow's models have such numbers without using them
            raise ValueError("a time step in a layer without shortcut")


class _Fitting:
    """Fitting nets of a file, and types of atoms for which the nets are not evaluated.

    Attributes
    ----------
    without_net
        Types whose net is not evaluated.
    silent
        Types whose atoms have no output at all.
    """

    def __init__(self, stored, tree, se):
        self.stored, self.tree, self.se = stored, tree, se
        self.n_species, self.source = len(se.species), tree["fitting"]
        self.nets = part(part(self.source, "nets", dict), "networks", list)
        if len(self.nets) != self.n_species:
            raise ValueError(f"{len(self.nets)} fitting nets for {self.n_species} types")
        self.silent = types(tree, "atom_exclude_types", self.n_species)
        self.without_net = types(self.source, "exclude_types", self.n_species) | {
            k for k, net in enumerate(self.nets) if net is None
        }

    @torch.no_grad()
    def head(self, options):
        """Head in float64."""
        if self.source["type"] in ("ener", "dos"):
            return self._scalars(options)
        return self._tensors(options)

    def _layers(self, k, widths, n_out):
        return self.stored.layers(self.nets[k], self.source["activation_function"], self.se.n_features, widths, n_out)

    def _scalars(self, options):
        """Head of energies or spectra; types without a net or an output have a constant."""
        source, n, is_energy = self.source, self.n_species, self.source["type"] == "ener"
        n_out = 1 if is_energy else part(source, "dim_out", int)
        layers = {k: self._layers(k, options["widths"], n_out) for k in range(n) if self.nets[k] is not None}
        out_bias = self.stored.array(self.tree["@variables"]["out_bias"], (n, n_out))
        own_bias = part(source, "@variables", dict).get("bias_atom_e")
        own_bias = torch.zeros(n, n_out) if own_bias is None else self.stored.array(own_bias, (n, n_out))
        if is_energy:
            head = ScalarHead(n, self.se.n_features, **options).double()
        else:
            # deepmd-kit stores no energy grid: numbers 0 .. S-1 stand for it until the user sets the true one
            head = SpectrumHead(n, self.se.n_features, np.arange(n_out, dtype=float), **options).double()
        for k in range(n):
            last = head.nets.last[k]
            if k in self.silent | self.without_net:
                last.weight.zero_()
                last.bias.zero_()
                head.nets.bias[k] = 0 if k in self.silent else out_bias[k]
                continue
            *hidden, output = layers[k]
            _fill(self.stored, head.nets.hidden[k], hidden)
            last.weight.copy_(output["w"].T)
            if output["b"] is not None:
                last.bias.copy_(output["b"])
            head.nets.bias[k] = out_bias[k] + own_bias[k]
            if self._of_vacuum(k):
                head.nets.bias[k] -= last(head.nets.hidden[k](torch.zeros(1, self.se.n_features).double()))[0]
        return head

    def _of_vacuum(self, k):
        """Whether the output of a net without neighbors is subtracted, because the energy of the lone atom is known."""
        given = self.source.get("atom_ener") or []
        beyond = self.stored.tree.get("backend") != "TensorFlow"  # what holds for types that it does not name
        return any(energy is not None for energy in given) and (beyond if k >= len(given) else given[k] is not None)

    def _tensors(self, options):
        """Head of dipoles or polarizabilities; the factors of the species go into the last layers."""
        source, n, n_rows = self.source, self.n_species, self.se.widths[-1]
        scale, shift = self._scale_and_shift()
        centers = [k for k in range(n) if k not in self.silent and (k not in self.without_net or shift[k])]
        if not centers:
            raise ValueError("no type has an output")
        shape = n, self.se.n_features, n_rows, centers
        full = source["type"] == "polar" and not part(source, "fit_diag", bool)
        n_out = n_rows**2 if full else n_rows
        layers = {k: self._layers(k, options["widths"], n_out) for k in centers if k not in self.without_net}
        biases = self.stored.array(part(source, "@variables", dict)["bias_atom_e"], (n, n_out))
        head = (
            TensorHead(*shape, **options, full=full) if source["type"] == "polar" else VectorHead(*shape, **options)
        ).double()
        first = int(source["type"] == "polar")  # the isotropic part comes before the outputs that multiply rows
        for place, k in enumerate(centers):
            weight, bias = head.nets.last[place].weight.zero_(), head.nets.last[place].bias.zero_()
            if k not in self.without_net:
                *hidden, output = layers[k]
                _fill(self.stored, head.nets.hidden[place], hidden)
                b = biases[k] + (0 if output["b"] is None else output["b"])
                columns = torch.cat([output["w"], b[None]]) * scale[k]
                if full:  # F_ij with i <= j of the symmetric part of the file's matrix
                    square = columns.reshape(-1, n_rows, n_rows)
                    i, j = torch.triu_indices(n_rows, n_rows)
                    columns = ((square + square.mT) / 2)[:, i, j]
                weight[first:], bias[first:] = columns[:-1].T, columns[-1]
            if first:
                bias[0] = shift[k]
        return head

    def _scale_and_shift(self):
        """Arrays [species], the factor of the nets' outputs and what is added to the diagonal of a polarizability.

        The file means scale (net + shift). A model that was trained with TensorFlow means scale net + shift, with the
        entries counted over the types that have a net, and its converter does not change the numbers.
        """
        n = self.n_species
        scale, shift = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        if self.source["type"] != "polar":
            return scale, shift
        names = part(self.source, "@variables", dict)
        factor, constant = (self.stored.array(names[name]).ravel() for name in ("scale", "constant_matrix"))
        if self.stored.tree.get("backend") == "TensorFlow":
            chosen = [k for k in range(n) if k not in self.without_net]
            scale[chosen], shift[chosen] = factor[: len(chosen)], constant[: len(chosen)]
            return scale, shift
        if len(factor) != n or len(constant) != n:
            raise ValueError(f"{len(factor)} scales and {len(constant)} constants for {n} types")
        bias = self.stored.array(self.tree["@variables"]["out_bias"], (n, 3, 3))
        wanted = part(self.source, "shift_diag", bool)
        return factor, factor * (constant + bias.diagonal(dim1=1, dim2=2).mean(dim=1)) * wanted
