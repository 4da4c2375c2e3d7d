"""Energies that are linear in the features: the best weights in closed form, for data too few for a net."""

import math

import numpy as np
import torch
from tqdm import tqdm

from ase_mlelec.data.batches import Batches
from ase_mlelec.system import System
from ase_mlelec.train.finite import Diverged, closed_form, explained_rows
from ase_mlelec.train.losses import check_terms, energy_and_derivatives
from ase_mlelec.train.memory import NUMBER, check_memory
from ase_mlelec.train.sums import NormalEquations, digest_of

CHANGE = 2.3  # of the logarithm of a ridge in one round
MANY_WEIGHTS = 20_000  # whose matrices take gigabytes
FEW_ROWS = 0.5  # times so many weights: with fewer labels their own matrix is solved
REMEDY = (
    "take fewer features: in [power_spectrum] near = 0 (no quadruples) or a lower n_radial, l_max or roughest, "
    "in [descriptor] fewer widths or a lower n_axis; or fewer species in one model"
)
LEAST = 7.0  # below the mean of the logarithms: less would leave the matrix singular


def fit_linear(
    model,
    frames,
    loss,
    ridge,
    coarse=None,
    coarse_ridge=0.0,
    far=None,
    far_weight=1.0,
    relevance=0,
    batch_size=16,
    checkpoint=None,
    progress=True,
):
    """Weights of an energy head without hidden layers: ridge regression to energies, forces and virials.

    Least is the sum over structures of ``loss`` with its last prefactors, plus a ridge on how far the weights of the
    standardised features are from what they were, which is zero in a new model.  A structure without one of the labels
    has no rows for it in the sum; all others count what they count in a set where every label is there.

    model : Model, trained in place; the descriptor stays as it is
    loss : EnergyLoss
    ridge : float, of the mean diagonal element of the normal matrix
    coarse : Frames of a calculation that is less converged.  Theirs is an energy of its own, with weights that differ
        from those of the model, and a ridge, ``coarse_ridge`` (float, as ``ridge``), on by how much
    far : Frames whose errors count ``far_weight`` (float) times as much as those of ``frames``
    relevance : int, rounds in which each group of features (see Descriptor.feature_groups) of each species gets a ridge
        of its own, one with which the labels are more probable; ``ridge`` is their geometric mean over what the labels
        determine
    checkpoint : path; read at the start when present.  It holds the sums over the structures so far, at most twice P^2
        numbers for P weights, so that an interrupted fit goes on and ends with the same weights, to the bit; ridge and
        relevance may be others.  It is written when fifty times as long has passed as that takes, and when all sums
        are known

    Where there are many weights and the labels are fewer than half of them, as molecules of many species have, the same
    weights are found from a matrix as large as the labels, without a checkpoint, unless there are coarse ones or groups.

    Raises ValueError when labels are mis-shaped or not finite, no frame has one that the loss compares with, the
    matrices are larger than the memory that is left, or a checkpoint belongs to another fit or is damaged, and Diverged
    when rows or the solution are not finite.

    Source: as the linear fit of Thompson et al. 2015, J. Comput. Phys. 285, 316, with a ridge; two energies that differ
    by a smaller one as in Kennedy and O'Hagan, Biometrika 87, 1 (2000); ridges by groups as those by parameters in
    MacKay, Neural Comput. 4, 415 (1992) and 11, 1035 (1999).
    """
    check_terms(loss, frames)
    parts = [part if part is not None and len(part) else None for part in (frames, far, coarse)]
    remedy = f"give a ridge larger than {ridge:g}, or check the labels. Nothing was saved"
    n_rows, n_weights = sum(_n_rows(part, loss) for part in parts if part), _n_weights(model)
    with closed_form("the closed form of the energy", remedy):
        if n_weights > MANY_WEIGHTS and n_rows < FEW_ROWS * n_weights and not relevance and parts[2] is None:
            change = _from_rows(model, parts, loss, ridge, far_weight, batch_size, progress)
        else:
            copies = 6 if parts[2] else 4 if relevance or parts[1] else 2
            check_memory(
                copies * n_weights**2 + 3 * n_weights * _largest_batch(parts, loss, batch_size),
                f"the closed form of {n_weights} weights, with {copies} matrices of "
                f"{NUMBER * n_weights**2 / 1e9:.3g} GB,",
                REMEDY,
            )
            sums = _normal_equations(model, parts, loss, far_weight, coarse_ridge, batch_size, checkpoint, progress)
            change = _solution(model, sums, ridge, relevance, progress)
    if not bool(torch.isfinite(change).all()):
        raise Diverged(f"the closed form of the energy has no finite solution; {remedy}")
    _add(model.heads["energy"].nets.last, change)


@torch.no_grad()
def _add(last, change):
    """Add the changes [P] of weights and constants to those of the layers."""
    weights, constants = change[: -len(last)].reshape(len(last), -1), change[-len(last) :]
    for layer, weight, constant in zip(last, weights, constants):
        layer.weight += weight
        layer.bias += constant


def _n_weights(model):
    return sum(layer.weight.numel() + layer.bias.numel() for layer in model.heads["energy"].nets.last)


def _n_rows(frames, loss):
    """How many numbers the labels of the frames are."""
    return sum(np.size(frame.labels[name]) for frame in frames for name in loss.labels if name in frame.labels)


def _largest_batch(parts, loss, batch_size):
    """The most rows that a batch can have."""
    return sum(sorted(_n_rows([frame], loss) for part in parts if part for frame in part)[-batch_size:])


def _from_rows(model, parts, loss, ridge, far_weight, batch_size, progress):
    """The change of the weights [P] where the labels are fewer: A^T (A A^T + ridge)^-1 b with A [n, P] and b [n]."""
    n_rows, n_weights = sum(_n_rows(part, loss) for part in parts if part), _n_weights(model)
    check_memory(
        (2 * n_rows + 3 * _largest_batch(parts, loss, batch_size)) * n_weights + 3 * n_rows**2,
        f"the closed form of {n_rows} labels and {n_weights} weights",
        REMEDY,
    )
    found = []
    for part, weight in zip(parts, (1.0, far_weight)):
        batches = _batches(model, part, loss)
        for start in tqdm(range(0, len(batches), batch_size), disable=None if progress else True, unit=" batches"):
            chosen = range(start, min(start + batch_size, len(batches)))
            found.append([weight**0.5 * column for column in _checked_rows(model, batches, chosen, loss)])
    rows, rest = (torch.cat(column) for column in zip(*found))
    held = rows @ rows.T
    held.diagonal().add_(ridge * float(held.diagonal()[: _n_rows(parts[0], loss)].sum()) / n_weights)
    return rows.T @ torch.linalg.solve(held, rest)


def _solution(model, sums, ridge, relevance, progress):
    """The change of the weights [P], from A^T A + ridge."""
    weight, size = model.heads["energy"].nets.last[0].weight, sums.size
    normal, right = sums.normal.to(weight), sums.right.to(weight)
    ridges = torch.full_like(right, ridge * size)
    groups = _groups(model).to(right.device)
    for _ in tqdm(range(relevance), disable=None if progress else True, unit=" rounds"):
        ridges[: len(groups)] = _more_probable(normal, right, ridges, groups, math.log(ridge * size))
    normal.diagonal().add_(ridges)
    return torch.linalg.solve(normal, right)


def _normal_equations(model, parts, loss, far_weight, coarse_ridge, batch_size, checkpoint, progress):
    """NormalEquations in the change of the weights; parts : frames, far and coarse ones or None."""
    sums = NormalEquations(
        checkpoint,
        {
            "frames": [part and part.fingerprint() for part in parts],
            "loss": f"{type(loss).__name__} {vars(loss)}",
            "model": digest_of(model),
            "batch_size": batch_size,
            "far_weight": far_weight if parts[1] else None,
            "coarse_ridge": coarse_ridge if parts[2] else None,
        },
    )
    changes = [
        None,
        lambda normal, right: (far_weight * normal, far_weight * right),
        lambda normal, right: _capped(normal, right, coarse_ridge * sums.size),
    ]
    for place, (part, change) in enumerate(zip(parts, changes)):
        batches = _batches(model, part, loss)
        if len(batches):
            sums.add(
                place,
                len(batches),
                batch_size,
                lambda chosen: _checked_rows(model, batches, chosen, loss),
                change,
                progress,
            )
    return sums


def _batches(model, part, loss):
    """Batches of the frames that have one of the labels; empty for None."""
    return Batches.for_model(model, part, loss.labels).with_label(*loss.labels) if part else ()


def _checked_rows(model, batches, chosen, loss):
    """_weighted_rows of some frames; Diverged where they are not finite."""
    found = _weighted_rows(model, batches.batch(chosen), loss)
    if not all(bool(torch.isfinite(part).all()) for part in found):
        raise explained_rows(batches, chosen, lambda batch: _weighted_rows(model, batch, loss))
    return found


def _groups(model):
    """Tensor [species F], the group that each weight is in; constants of the species come after them, in none."""
    n_species = len(model.heads["energy"].nets.last)
    own = model.descriptor_of("energy").feature_groups()
    if own is None:
        own = torch.zeros(model.descriptor_of("energy").n_features, dtype=torch.long)
    return (torch.arange(n_species)[:, None] * (own.max() + 1) + own).flatten()


def _more_probable(normal, right, ridges, groups, mean_log):
    """Ridges after one round: the parameters of a group that the labels determine, over the squares of its weights.

    That is where the derivative of the labels' probability is zero, with the weights of the former ridges.  The mean of
    the ridges' logarithms over the parameters that are determined is ``mean_log``, no ridge changes by more than a
    factor of ten or so in a round, and none is below a thousandth of the mean.
    """
    held = normal.clone()
    held.diagonal().add_(ridges)
    factor = torch.linalg.cholesky(held)
    weights = torch.cholesky_solve(right[:, None], factor)[:, 0]
    determined = 1 - ridges * torch.cholesky_inverse(factor).diagonal()
    former = ridges[: len(groups)]
    sums = [torch.bincount(groups, values[: len(groups)]) for values in (determined, weights**2)]
    share, square = sums[0].clamp(min=1e-9), sums[1].clamp(min=1e-300)
    change = ((share / square)[groups] / former).log()
    each = (share / torch.bincount(groups))[groups]
    change = (change - each @ change / each.sum()).clamp(-CHANGE, CHANGE)
    found = former.log() + change
    return (found - each @ (found - mean_log) / each.sum()).clamp(min=mean_log - LEAST).exp()


def _capped(normal, right, ridge):
    """What normal equations in w + e tell about w, where e has a ridge and is eliminated: of no direction more than
    ``ridge``."""
    held = normal.clone()
    held.diagonal().add_(ridge)
    solved = ridge * torch.linalg.solve(held, torch.cat([normal, right[:, None]], dim=1))
    return (solved[:, :-1] + solved[:, :-1].T) / 2, solved[:, -1]


def _weighted_rows(model, batch, loss):
    """(what the weights multiply [n, P], what is left to fit [n]): energies, force components, virial components of
    the structures that have these labels."""
    labels = [name for name in loss.labels if name in batch.labels]
    columns, derivatives = _columns(model, batch, labels)
    energy, found = energy_and_derivatives(model, batch, labels)
    n_atoms = batch.system.n_atoms.to(energy.dtype)
    atomic, whole = loss.weights(batch, n_atoms)
    share = 1 / n_atoms.index_select(0, batch.system.batch)
    importance = {
        "energy": (loss.energy, whole / n_atoms, 1),
        "forces": (loss.forces, atomic * share, 3),
        "virial": (loss.virial, whole / n_atoms, 9),
    }
    rows, rest = [], []
    for name in labels:
        (_, last), weight, n = importance[name]
        root = (last / n * batch.matching(name, weight)).sqrt().repeat_interleave(n)
        mine = batch.matching(name, energy if name == "energy" else found[name])
        of_weights = (columns if name == "energy" else derivatives[name]).unflatten(0, (-1, n))
        rows.append(root[:, None] * batch.matching(name, of_weights).flatten(0, 1))
        rest.append(root * (batch.labels[name] - mine.detach()).reshape(-1))
    return torch.cat(rows), torch.cat(rest)


@torch.no_grad()
def _columns(model, batch, labels):
    """Energies [B, P] of unit weights, and dict of their forces [3 N, P] and virials [9 B, P]."""
    nets, descriptor = model.heads["energy"].nets, model.descriptor_of("energy")
    system, edges = batch.system, batch.edges()
    environment = descriptor(system, edges)
    species = environment.species
    x = nets.scale * (environment.features - nets.shift[species]) * nets.inverse[species]
    own = torch.nn.functional.one_hot(species, len(nets.last)).to(x)
    columns = [*(system.sum_per_system(x * one[:, None]) for one in own.T), nets.scale * system.sum_per_system(own)]
    derivatives = {name: [] for name in labels if name != "energy"}
    for part in _structures(system, edges):
        for name, rows in derivatives.items():
            changes = descriptor.summed_changes(*part, _moves(name, *part))
            changes = -nets.scale * (changes * nets.inverse).flatten(1)
            rows.append(torch.cat([changes, changes.new_zeros(len(changes), own.shape[1])], dim=1))
    return torch.cat(columns, dim=1), {name: torch.cat(rows) for name, rows in derivatives.items()}


def _structures(system, edges):
    """Iterate over (System, Edges) of one structure each."""
    ends = [0, *system.n_atoms.cumsum(0).tolist()]
    bounds = torch.searchsorted(edges.center, torch.tensor(ends, device=edges.center.device)).tolist()
    for k in range(system.n_systems):
        atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
        yield (
            System(
                system.positions[atoms],
                system.numbers[atoms],
                system.cell[k : k + 1],
                system.pbc[k : k + 1],
                system.batch[atoms] - k,
            ),
            edges.part(atoms, rows),
        )


def _moves(name, system, edges):
    """By how much the vectors of the edges change, [T, E, 3], where each atom moves along each axis, or with the nine
    elements of the strain of the cell."""
    if name == "forces":
        ends = [torch.nn.functional.one_hot(end, len(system.numbers)) for end in (edges.neighbor, edges.center)]
        factors = (ends[0] - ends[1]).to(edges.vec)
    else:
        factors = edges.vec
    axes = torch.eye(3).to(edges.vec)
    return (factors.T[:, None, :, None] * axes[:, None]).flatten(0, 1)
