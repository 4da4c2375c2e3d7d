"""Errors of energies of structures that are left out of a closed form, from the solution with all of them.

The held-out structures by whose errors weights and ridge are chosen have errors that are small by choice, and they can be
few. Every structure that is fitted can be left out afterwards instead, with the same weights and ridge: for the rows A, b
of a block of structures, ::

    N = sum over all rows + ridge,   H = A N^-1 A^T,   x' = x - N^-1 A^T (1 - H)^-1 (b - A x)

is the solution x' without them, and N^-1 + N^-1 A^T (1 - H)^-1 A N^-1 is its covariance. With fewer rows than columns,
1 - H is a block of the inverse of the matrix of all rows, times the ridge.

Reference: Golub, Heath and Wahba 1979, Technometrics 21, 215, for single rows.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.matrices import add_normal_matrix
from ase_mlelec.model import Model
from ase_mlelec.train.choice import DualEquations, RowsByLabel
from ase_mlelec.train.deviations import Deviations
from ase_mlelec.train.energy_rows import n_rows, plain_rows, roots_of_weights
from ase_mlelec.train.losses import EnergyLoss

STRUCTURES, BLOCK = 100, 4  # structures that are left out, and in a block: neighbors in a trajectory are alike
MOST_ROWS = 4000  # of a block
FEWEST_BLOCKS = 5  # of few structures: without most of them, errors are those of another model


def left_out_energies(
    model: Model, frames: Frames, loss: EnergyLoss, *, factor: Tensor, solution: Tensor, units: Mapping[str, float]
) -> Deviations | None:
    """Errors of the energies of structures in blocks, each left out, with the deviations of their predictions.

    Parameters
    ----------
    model : Model
        The model from before the fit.
    frames : Frames
        Structures that were fitted, in the order of trajectories; of many, blocks from all parts are taken.
    loss : EnergyLoss
    factor : Tensor [P, P]
        Lower Cholesky factor of the normal matrix with its ridge.
    solution : Tensor [P]
    units : dict of float
        Factor of the squares of the rows of each label in the normal matrix.

    Returns
    -------
    Deviations or None
        eV, of whole structures with a weight; None where no energy can be left out.
    """
    found = []
    for chosen in _blocks(frames, loss):
        batches = Batches.for_model(model, frames.take(chosen), loss.labels).with_label(*loss.labels)
        if len(batches):
            found.append(_without(model, batches, loss, factor, solution, units))
    columns = [np.concatenate(column) for column in zip(*filter(None, found))]
    return Deviations(*columns) if columns else None


def _blocks(frames, loss):
    """Blocks of consecutive structures, lists of int, evenly from all of them."""
    most = max((n_rows([frame], loss) for frame in frames), default=1)
    size = max(1, min(BLOCK, MOST_ROWS // max(most, 1)))
    blocks = np.array_split(np.arange(len(frames)), max(1, len(frames) // size))
    places = np.linspace(0, len(blocks) - 1, min(len(blocks), STRUCTURES // size)).round().astype(int)
    return [blocks[place].tolist() for place in places]


def _rows_one_by_one(model, batches, names):
    """Rows and targets by label; those of all structures at a time would fill gigabytes where these are large."""
    found: dict[str, list] = {name: [] for name in names}
    for batch in batches.all_batches(1):
        for name, pair in plain_rows(model, batch, [name for name in names if name in batch.labels]).items():
            found[name].append(pair)
    return {name: [torch.cat(column) for column in zip(*pairs)] for name, pairs in found.items()}


def _without(model, batches: Batches, loss, factor, solution, units):
    """(errors, deviations, roots of the numbers of atoms) of the energies of a block that is left out, or None."""
    batch = batches.batch(range(len(batches)))
    names = [name for name in loss.labels if name in batch.labels]
    if "energy" not in names:
        return None
    found, roots = _rows_one_by_one(model, batches, names), roots_of_weights(batch, loss, names)
    factors = {name: units.get(name, 0.0) ** 0.5 * roots[name] for name in names}
    rows = torch.cat([factors[name][:, None] * found[name][0] for name in names])
    rest = torch.cat([factors[name] * found[name][1] for name in names]) - rows @ solution
    counted = roots["energy"] > 0  # structures without a weight have rows of zeros
    own, target = (part[counted] for part in found["energy"])
    columns = torch.linalg.solve_triangular(factor, torch.cat([rows, own]).T, upper=False)
    of_rows, of_own = columns[:, : len(rows)], columns[:, len(rows) :]
    products = torch.zeros(len(rows), len(rows)).to(rows)
    add_normal_matrix(products, of_rows)  # the factorization does not read what is above the diagonal
    inner, failed = torch.linalg.cholesky_ex(torch.eye(len(rows)).to(rows) - products)
    if failed or not len(own):  # only these rows determine some of the weights
        return None
    cross = of_own.T @ of_rows
    moved = torch.cholesky_solve(torch.cat([rest[:, None], cross.T], dim=1), inner)
    errors = own @ solution - cross @ moved[:, 0] - target
    variances = of_own.square().sum(dim=0) + (cross * moved[:, 1:].T).sum(dim=1)
    n_atoms = batch.matching("energy", batch.system.n_atoms.to(errors))[counted]
    return [part.cpu().numpy() for part in (errors, variances.sqrt(), n_atoms.sqrt())]


def left_out_of_rows(
    model: Model,
    frames: Frames,
    loss: EnergyLoss,
    *,
    rows: RowsByLabel,
    of: DualEquations,
    units: Mapping[str, float],
    among: Frames,
) -> Deviations | None:
    """As ``left_out_energies``, for fewer rows than columns.

    Parameters
    ----------
    frames : Frames
        All structures that were fitted, in the order in which their rows were added, one structure after the other.
    rows : RowsByLabel
    of : DualEquations
        Those of ``rows`` with the weights and the ridge of the fit.
    units : dict of float
        Factor of the squares of the rows of each label.
    among : Frames
        Those of ``frames`` that are left out.
    """
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    factors = _factors_of_energies(batches, loss, units)
    chosen = {id(frame) for frame in among}
    having = [frame for frame in frames if {*loss.labels} & {*frame.labels}]
    may = torch.tensor([k in factors and id(frame) in chosen for k, frame in enumerate(having)])
    structure, is_energy = rows.owners()
    inverse = torch.cholesky_inverse(cast(Tensor, of.factor))  # there is a solution
    solution, found = inverse @ of.targets, []
    numbers = may.nonzero()[:, 0]
    # without energies, torch would give one empty block
    blocks = numbers.split(max(1, min(BLOCK, len(numbers) // FEWEST_BLOCKS))) if len(numbers) else ()
    for block in blocks:
        own = (torch.isin(structure, block) & (of.roots > 0)).nonzero()[:, 0]
        inner, failed = torch.linalg.cholesky_ex(inverse[own][:, own])
        if failed:
            continue
        mine = is_energy[own]
        factor, n_atoms = torch.tensor([factors[k] for k in structure[own][mine].tolist()]).to(solution).T
        errors = -torch.cholesky_solve(solution[own, None], inner)[mine, 0]
        variances = torch.cholesky_inverse(inner).diagonal()[mine] / of.ridge - 1
        found.append([errors / factor, variances.clamp(min=0).sqrt() / factor, n_atoms.sqrt()])
    columns = [torch.cat(column).cpu().numpy() for column in zip(*found)]
    return Deviations(*columns) if columns else None


def _factors_of_energies(batches, loss, units):
    """(factor of the row of its energy, number of atoms) of each structure with an energy that counts, dict by number."""
    found = {}
    for k in range(len(batches)):
        batch = batches.batch([k])
        if "energy" in batch.labels:
            root = float(roots_of_weights(batch, loss, ["energy"])["energy"]) * units.get("energy", 0.0) ** 0.5
            if root > 0:
                found[k] = root, float(batch.system.n_atoms)
    return found
