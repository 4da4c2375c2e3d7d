"""Normalization of a new model from its training data."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches, join_environments
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors import Environment
from ase_mlelec.heads.base import FittingNets
from ase_mlelec.model import Model
from ase_mlelec.quantities import LABELS, QUANTITIES

ALIKE = 1e-3  # spread of features relative to their size, below which atoms are alike
ENOUGH_ATOMS = 3000
ROWS = 20  # components of labels for each constant of tensors of centers


def standardize(model: Model, frames: Frames) -> None:
    """Set the normalization of a new model from its training data: of the descriptors, then of all heads."""
    batches = Batches.for_model(model, frames, ())
    for descriptor in filter(None, (model.descriptor, model.electronic)):
        descriptor.standardize((batch.system, batch.edges()) for batch in batches.all_batches(16))
    standardize_heads(model, frames)


@torch.no_grad()
def standardize_heads(model: Model, frames: Frames, names: Sequence[str] | None = None) -> None:
    """Set the normalization of new heads for the present descriptor.

    By default it is done for all heads with FittingNets and a row in ase_mlelec.quantities.

    Features get zero mean and unit spread, or the weights of the descriptor. Sums over atoms get their least-squares
    composition as bias, values of atoms their mean by species, tensors of centers the best constant coefficients of
    their basis. The spread around the bias is the scale of a head's output; for energies it is at least the root mean
    square force times 1 Å.

    Frames without the label of a head have no part in its bias and its scale.

    Raises
    ------
    ValueError
        For a species without atoms in ``frames``, and for a species without a label.
    """
    if names is None:
        of_species = [
            name for name, head in model.heads.items() if isinstance(getattr(head, "nets", None), FittingNets)
        ]
        names = [name for name in of_species if name in QUANTITIES]
    labels = {name: _label_of(QUANTITIES[name], frames) for name in names}
    for name in names:
        _check_labeled(model, QUANTITIES[name], frames)
    batches = Batches.for_model(model, frames, tuple(labels.values()))
    seen = {}
    for descriptor in map(model.descriptor_of, names):
        of_sums = not any(LABELS[labels[name]].of_atoms for name in names if model.descriptor_of(name) is descriptor)
        if of_sums and descriptor.feature_weights() is not None:
            some = Batches.for_model(model, _some(frames), ())
        else:
            some = batches
        seen[descriptor] = _environment(descriptor, some)
    for name, label in labels.items():
        nets, environment = model.heads[name].nets, seen[model.descriptor_of(name)]
        features, species = environment.features, environment.species
        for place, k in enumerate(getattr(model.heads[name], "centers", range(len(model.species)))):
            own = features[species == k]
            if len(own) == 0:
                raise ValueError(
                    f"got no atoms of {model.species[k]} in {len(frames)} frames; add some or leave it out"
                )
            nets.shift[place], nets.inverse[place] = mean_and_inverse(own, model.descriptor_of(name).feature_weights())
        having = batches.with_label(label)
        if hasattr(model.heads[name], "centers") and not len(having):
            _scale_of_slopes(model.heads[name], QUANTITIES[name], frames, environment)
        elif hasattr(model.heads[name], "centers"):
            _center_tensors(model.heads[name], having, label, _environment_of_label(environment, batches, label))
        elif LABELS[label].of_atoms:
            _center_atoms(nets, having, label, _environment_of_label(environment, batches, label).species)
        elif len(having):
            _center_totals(model, nets, having, label)
        else:  # with forces alone the zero of energy is free
            nets.bias.zero_()
            nets.scale.zero_()
        if QUANTITIES[name].gradients:
            _widen_scale(nets, frames)


def _some(frames):
    """Enough frames for the spread of features that a smoothness prior scales: every n-th, and some of every species."""
    n_atoms = sum(len(frame.atoms) for frame in frames)
    chosen = list(range(0, len(frames), max(1, n_atoms // ENOUGH_ATOMS)))
    seen = {symbol for k in chosen for symbol in frames[k].atoms.symbols}
    for k, frame in enumerate(frames):
        if not seen.issuperset(frame.atoms.symbols):
            chosen.append(k)
            seen.update(frame.atoms.symbols)
    return frames.take(sorted(chosen))


def _widen_scale(nets, frames):
    """Raise the scale of an energy to the root mean square force times 1 Å, where it is smaller.

    Energies per atom of small or similar structures differ less than the energy of an atom changes when it moves. For
    molecules their spread would be a hundred times too small as the scale of a net.
    """
    forces = [np.ravel(frame.labels["forces"]) for frame in frames if "forces" in frame.labels]
    size = float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else 0.0
    nets.scale.clamp_(min=size)
    nets.scale[nets.scale == 0] = 1.0


def mean_and_inverse(features: Tensor, weights: Tensor | None) -> tuple:
    """Shift and factor [F] that standardize the features [C, F] of one species.

    Atoms that are all alike, as in one symmetric molecule or a perfect crystal, have no spread but that of rounding; the
    size of their features counts then.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    own = torch.ones_like(mean) if weights is None else weights
    if float((own * spread).norm()) < ALIKE * float((own * mean).norm()):
        spread = mean.abs()
    if weights is not None:
        return mean, weights / (weights * spread).norm().clamp(min=1e-12)
    # features that hardly vary must not be enlarged
    return mean, 1 / (spread + 0.1 * spread.mean() + 1e-12)


def _label_of(quantity, frames):
    """Label from which the bias of a head is computed: the label by atom, where all species of the frames have it."""
    atomic, total = quantity.atomic, quantity.total
    if not atomic or not total:
        return atomic or total
    present, labeled = (
        {number for frame in part for number in frame.atoms.numbers}
        for part in (frames, frames.where(lambda frame: atomic in frame.labels))
    )
    return atomic if labeled == present or not any(total in frame.labels for frame in frames) else total


def _check_labeled(model, quantity, frames):
    """Raise ValueError for a species of the head that no frame with a label contains."""
    having = frames.where(lambda frame: any(label in frame.labels for label in quantity.labels))
    seen = {symbol for frame in having for symbol in frame.atoms.symbols}
    for k in getattr(model.heads[quantity.name], "centers", range(len(model.species))):
        if model.species[k] not in seen:
            raise ValueError(
                f"got no atoms of {model.species[k]} in {len(having)} frames with a label of the {quantity.name} "
                f"({' or '.join(quantity.labels)}); add some or leave it out"
            )


def _environment_of_label(environment, batches, label):
    """Environment of the atoms of those structures that have the label."""
    chosen = torch.cat(
        [
            torch.full((len(system.positions),), label in labels)
            for system, labels in zip(batches.systems, batches.labels)
        ]
    ).to(environment.species.device)
    if bool(chosen.all()):
        return environment
    return Environment(
        *(
            column if column is None else column[chosen]
            for column in (environment.features, environment.species, environment.frame)
        )
    )


def _environment(descriptor, batches):
    """Environment of all atoms."""
    return join_environments([descriptor(batch.system, batch.edges()) for batch in batches.all_batches(16)])


def _center_totals(model, nets, batches, label):
    counts, totals = [], []
    for batch in batches.all_batches(16):
        species = model.descriptor.species_of_number[batch.system.numbers]
        one_hot = torch.nn.functional.one_hot(species, len(model.species)).to(model.dtype)
        counts.append(batch.system.sum_per_system(one_hot))
        totals.append(batch.labels[label].reshape(batch.system.n_systems, -1))
    counts, totals = torch.cat(counts), torch.cat(totals)
    # on the CPU, whose driver "gelsd" can solve rank-deficient problems (equal compositions)
    bias = torch.linalg.lstsq(counts.cpu(), totals.cpu(), driver="gelsd").solution.to(totals.device)
    nets.bias.copy_(bias)
    _set_scale(nets, (totals - counts @ bias) / counts.sum(dim=1, keepdim=True))


def _center_atoms(nets, batches, label, species):
    values = torch.cat([batch.labels[label].reshape(len(batch.labels[label]), -1) for batch in batches.all_batches(16)])
    for k in range(len(nets.bias)):
        nets.bias[k] = values[species == k].mean(dim=0)
    _set_scale(nets, values - nets.bias[species])


def _center_tensors(head, batches, label, environment):
    """Bias of a CenterHead: the constant outputs b_o of the nets for which sum_o b_o B_o is nearest to the labels.

    The tensors B_o are similar to each other; directions in which they hardly differ are left out, because they would
    make the constants large. So are directions beyond one for ROWS components of labels: with as many constants as there
    are components nothing would be left to learn.
    """
    basis = head.basis(environment.frame)  # [N, O, 3 ...]
    system = next(iter(batches.all_batches(len(batches)))).system
    columns = []
    for k in head.centers:
        own = basis * (environment.species == k).reshape(-1, *[1] * (basis.ndim - 1))
        columns.append(own if LABELS[label].of_atoms else system.sum_per_system(own))
    matrix = torch.cat(columns, dim=1).movedim(1, -1).flatten(0, -2)  # [rows, centers O]
    truth = torch.cat([batch.labels[label] for batch in batches.all_batches(16)]).reshape(-1, 1)
    size = matrix.square().mean(dim=0).sqrt() + 1e-12
    left, values, right = torch.linalg.svd((matrix / size).cpu(), full_matrices=False)
    n = min(int((values > 1e-3 * values[0]).sum()), max(1, len(truth) // ROWS))
    solution = (right[:n].T @ ((left[:, :n].T @ truth.cpu()) / values[:n, None])).to(size)
    residual = (truth - matrix / size @ solution).square().mean().sqrt()
    head.nets.bias.copy_((solution[:, 0] / size).reshape(head.nets.bias.shape))
    size = size.reshape(head.nets.bias.shape).square().mean(dim=0).sqrt()
    head.nets.scale.copy_(residual.clamp(min=1e-12) / (size * len(size) ** 0.5))


def _scale_of_slopes(head, quantity, frames, environment):
    """Zero bias of a CenterHead, and the scale that fits derivatives of sums, for vectors that change within 1 Å."""
    rows = [np.asarray(frame.labels[quantity.slopes]) for frame in frames if quantity.slopes in frame.labels]
    sizes = head.basis(environment.frame).flatten(2).square().mean(dim=(0, 2)).sqrt()
    head.nets.bias.zero_()
    _set_scale(head.nets, torch.from_numpy(np.concatenate(rows)))
    head.nets.scale /= (sizes * len(sizes) ** 0.5).clamp(min=1e-12)


def _set_scale(nets, residual):
    spread = float((residual**2).mean().sqrt())
    nets.scale.fill_(spread if spread > 0 else 1.0)
