"""What labels of structures would say about the last layer of a model: rows in the units of its uncertainty.

The labels themselves are not needed: results are linear in the weights of the last layer, and a row is the derivative of a
result by these weights, see ase_mlelec.train.last_layer.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.active.config import head_of
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.model import Model
from ase_mlelec.quantities import LABELS, QUANTITIES
from ase_mlelec.train.error_bars import FEW, MANY, OF_MANY
from ase_mlelec.train.last_layer import n_weights, products_of_atoms, rows_of
from ase_mlelec.uncertainty import inverse_factor

MOVES = 8  # random displacements of all atoms, along which forces are looked at
MOST_ROWS = 24  # of a structure; of more, their principal directions
MOST_EXACT = 10_000  # weights; with more, whose covariance has gigabytes, that of the model file is taken
ROUNDING = 1e-12  # smallest ridge for each weight, with which the covariance is positive definite
MOST_DIRECTIONS = 1000  # of all weights; of more, those in which the results of the structures vary most


def informative_rows(model: Model, quantity: str, images: Sequence[Atoms], train: Frames) -> NDArray:
    """Rows [n, r, K] for ``selection.most_informative``: of energies and forces, or of atoms or sums, of each structure.

    The covariance is that of the training structures ``train`` with the ridge of the model, and not the sketch of it that
    model files have, in which few structures would explain everything. Forces are looked at along MOVES random
    displacements, the same for structures with as many atoms.

    Raises
    ------
    ValueError
        For structures to train on without labels.
    """
    name = head_of(quantity)
    known = blank(model, name, train)
    labels = sorted({label for frame in known for label in frame.labels})
    few = n_weights(model.heads[name]) <= MOST_EXACT
    factor = covariance_factor(model, name, known) if few else model.posteriors[name].inputs.flatten(0, 1)
    found = [_rows(model, name, known, Frame(atoms), labels, factor.double()) for atoms in images]
    most = max(map(len, found))
    rows = torch.stack([torch.nn.functional.pad(each, (0, 0, 0, most - len(each))) for each in found])
    return principal(rows).cpu().numpy()


def covariance_factor(model: Model, name: str, train: Frames) -> Tensor:
    """Factor X [P, P] of the posterior covariance X X^T of the last layer of a head, without scale.

    The ridge is that of the posterior, or of the closed form of an energy; the values of labels play no part.

    Raises
    ------
    ValueError
        For structures without labels.
    """
    normal: Tensor | None = None
    for found in rows_of(model, name, train):
        rows = (found.weights.sqrt()[:, None] * found.rows).double()
        normal = rows.T @ rows if normal is None else normal.addmm_(rows.T, rows)
    if normal is None:
        raise ValueError(f"{name}: no labels to learn what structures would teach; give training data with labels")
    size = len(normal)
    ridge = model.posteriors[name].ridge if name in model.posteriors else FEW
    if ridge:
        prior = products_of_atoms(model, name, train) if QUANTITIES[name].gradients and size <= MANY else None
        return inverse_factor(normal, ridge, prior=prior, most=size)
    closed = model.metadata.get("training", {}).get("closed_form", {}).get(name, {})
    return inverse_factor(normal, max(closed.get("ridge", 0.0), OF_MANY, ROUNDING * size), most=size)


def blank(model: Model, name: str, frames: Frames) -> Frames:
    """Frames with zeros for those of their labels that teach the head ``name``; its total label where none has one."""
    quantity, energies = QUANTITIES[name], getattr(model.heads[name], "energies", None)
    grid = None if energies is None else energies.cpu().numpy()
    given = [label for label in quantity.labels if label in frames.counts]

    def labels_of(frame):
        return [label for label in given if label in frame.labels] if given else [quantity.total]

    blanks = [replace(frame, labels=_zeros(frame, labels_of(frame), grid)) for frame in frames]
    width = model.metadata.get("dos_width_eV")
    return Frames(blanks, grid, {} if width is None else {"dos_width_eV": width})


def _zeros(frame, labels, grid):
    """Labels of zeros of a frame."""
    sizes = {"N": len(frame.atoms), "S": 0 if grid is None else len(grid), "3": 3}
    return {label: np.zeros([sizes[letter] for letter in LABELS[label].shape]) for label in labels}


def _rows(model, name, like, frame, labels, factor):
    """Rows [r, K] of one structure in the coordinates of ``factor``, at most MOST_ROWS."""
    frames = Frames([replace(frame, labels=_zeros(frame, labels, like.energies))], like.energies, like.attributes)
    parts = [each.weights.sqrt()[:, None] * each.rows for each in rows_of(model, name, frames, n_moves=MOVES)]
    rows = torch.cat(parts).double() @ factor
    if len(rows) <= MOST_ROWS:
        return rows
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    return values[:MOST_ROWS, None] * directions[:MOST_ROWS]


def principal(rows: Tensor) -> Tensor:
    """Rows [n, r, K] in their principal coordinates, at most MOST_DIRECTIONS."""
    flat = rows.flatten(0, 1)
    if rows.shape[2] <= MOST_DIRECTIONS:
        return rows
    _, vectors = torch.linalg.eigh(flat.T @ flat)
    return rows @ vectors[:, -MOST_DIRECTIONS:]
