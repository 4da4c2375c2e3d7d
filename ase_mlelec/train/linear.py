"""Energies that are linear in the features: the best weights in closed form, for data too few for a net."""
import math

import torch
from tqdm import tqdm

from ase_mlelec.system import System
from ase_mlelec.train.frames import Batches
from ase_mlelec.train.losses import energy_and_derivatives
from ase_mlelec.train.sums import NormalEquations, digest_of

CHANGE = 2.3        # of the logarithm of a ridge in one round
LEAST = 7.0         # below the mean of the logarithms: less would leave the matrix singular


def fit_linear(model, frames, loss, ridge, coarse=None, coarse_ridge=0.0, far=None, far_weight=1.0, relevance=0,
               batch_size=16, checkpoint=None, progress=True):
    """Weights of an energy head without hidden layers: ridge regression to energies, forces and virials.

    Least is the sum over structures of ``loss`` with its last prefactors, plus a ridge on how far the weights of the
    standardised features are from what they were, which is zero in a new model.

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

    Raises ValueError when labels are missing or mis-shaped, or a checkpoint belongs to another fit or is damaged.

    Source: as the linear fit of Thompson et al. 2015, J. Comput. Phys. 285, 316, with a ridge; two energies that differ
    by a smaller one as in Kennedy and O'Hagan, Biometrika 87, 1 (2000); ridges by groups as those by parameters in
    MacKay, Neural Comput. 4, 415 (1992) and 11, 1035 (1999).
    """
    nets = model.heads["energy"].nets
    sums = _normal_equations(model, [frames, far, coarse], loss, far_weight, coarse_ridge, batch_size, checkpoint,
                             progress)
    normal, right, size = sums.normal.to(nets.last[0].weight), sums.right.to(nets.last[0].weight), sums.size
    ridges = torch.full_like(right, ridge * size)
    groups = _groups(model).to(right.device)
    for _ in tqdm(range(relevance), disable=None if progress else True, unit=" rounds"):
        ridges[:len(groups)] = _more_probable(normal, right, ridges, groups, math.log(ridge * size))
    normal.diagonal().add_(ridges)
    change = torch.linalg.solve(normal, right)
    weights, constants = change[:-len(nets.last)].reshape(len(nets.last), -1), change[-len(nets.last):]
    with torch.no_grad():
        for layer, weight, constant in zip(nets.last, weights, constants):
            layer.weight += weight
            layer.bias += constant


def _normal_equations(model, parts, loss, far_weight, coarse_ridge, batch_size, checkpoint, progress):
    """NormalEquations in the change of the weights; parts : frames, far and coarse ones."""
    parts = [part if part is not None and len(part) else None for part in parts]
    sums = NormalEquations(checkpoint, {
        "frames": [part and part.fingerprint() for part in parts], "loss": f"{type(loss).__name__} {vars(loss)}",
        "model": digest_of(model), "batch_size": batch_size, "far_weight": far_weight if parts[1] else None,
        "coarse_ridge": coarse_ridge if parts[2] else None})
    changes = [None, lambda normal, right: (far_weight * normal, far_weight * right),
               lambda normal, right: _capped(normal, right, coarse_ridge * sums.size)]
    for place, (part, change) in enumerate(zip(parts, changes)):
        if part is not None:
            batches = Batches.for_model(model, part, loss.labels)
            sums.add(place, len(batches), batch_size, lambda chosen: _weighted_rows(model, batches.batch(chosen), loss),
                     change, progress)
    return sums


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
    former = ridges[:len(groups)]
    sums = [torch.bincount(groups, values[:len(groups)]) for values in (determined, weights**2)]
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
    """(what the weights multiply [n, P], what is left to fit [n]): energies, force components, virial components."""
    columns, derivatives = _columns(model, batch, loss.labels)
    energy, found = energy_and_derivatives(model, batch, loss.labels)
    n_atoms = batch.system.n_atoms.to(energy.dtype)
    atomic, whole = loss.weights(batch, n_atoms)
    share = 1 / n_atoms.index_select(0, batch.system.batch)
    importance = {"energy": (loss.energy, whole / n_atoms, 1), "forces": (loss.forces, atomic * share, 3),
                  "virial": (loss.virial, whole / n_atoms, 9)}
    rows, rest = [], []
    for name in loss.labels:
        (_, last), weight, n = importance[name]
        root = (last / n * weight).sqrt().repeat_interleave(n)
        mine = energy if name == "energy" else found[name]
        rows.append(root[:, None] * (columns if name == "energy" else derivatives[name]))
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
        yield (System(system.positions[atoms], system.numbers[atoms], system.cell[k:k + 1], system.pbc[k:k + 1],
                      system.batch[atoms] - k), edges.part(atoms, rows))


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
