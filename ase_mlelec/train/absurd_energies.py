"""Energies that contradict all other labels, such as those of calculations that failed: found, told and left out.

A small linear model is fitted to the forces of some structures. With the rows A of the energies, the inverse N^-1 of the
normal matrix of the forces, and the residuals r of the energies, each energy is predicted from the forces and all other
energies, with the error e and the variance v: ::

    M = A N^-1 A^T + diag(n),   e_i = [M^-1 r]_i / [M^-1]_ii,   v_i = 1 / [M^-1]_ii

The noise n of an energy begins with 1 and grows with its own e^2 / v, so that a wrong energy has no part in the predictions
of the others. Structures unlike all others have a large v, and are not taken for wrong.

References: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, for e and v; Lange, Little
and Taylor 1989, J. Am. Stat. Assoc. 84, 881, for the weights of Student's t.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.train.basis import first_basis, linear_model, some_of
from ase_mlelec.train.energy_rows import weighted_rows
from ase_mlelec.train.linear import RidgeRegression
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.spreads import beyond_composition

FAR = 1.0  # eV/atom from the others: nearer energies are not looked at, and most data need no model
# in units of the median: right energies of eight sets, dimers and 1,000 GPa among them, are at most at 110; an energy
# that is 1,000 eV off is at 100,000
ABSURD = 1000.0
FEWEST = 8  # energies
MOST = 1500  # energies that are compared
WEIGHTS, ATOMS = 300, 3000  # of the small model, and of the structures with its forces
RIDGE = 1e-7
ROUNDS, WIDTH = 20, 3.0  # of the weights; error, in units of the median, that doubles the noise


def absurd_energies(frames: Frames, *, inner: float) -> dict[int, float]:
    """Find energies that contradict the forces and all other energies of a data set.

    Parameters
    ----------
    frames : Frames
    inner : float, Å
        Inner end of the radial functions.

    Returns
    -------
    dict of float
        Label minus prediction, eV, by the number of the frame.
    """
    having = [k for k, frame in enumerate(frames) if "energy" in frame.labels]
    if len(having) < FEWEST:
        return {}
    rest = beyond_composition([(frames[k].atoms.numbers, np.asarray(frames[k].labels["energy"])) for k in having])[:, 0]
    far = abs(rest - np.median(rest)) > FAR
    if not far.any() or far.sum() > len(having) / 2:
        return {}
    some = np.linspace(0, len(having) - 1, min(MOST, len(having))).astype(int)
    compared = [having[k] for k in np.union1d(some, np.flatnonzero(far))]
    species = sorted({symbol for frame in frames for symbol in frame.atoms.symbols})
    basis = first_basis(frames, len(species)).sized(WEIGHTS)
    model = linear_model(basis, frames, species=species, inner=inner)
    rows, targets = _rows(model, frames.take(compared), "energy")
    errors, sizes = left_out_errors(rows, targets, *_of_forces(model, frames))
    roots = [len(frames[k].atoms) ** 0.5 for k in compared]
    return {
        k: float(error) * root
        for k, error, size, root in zip(compared, errors, sizes, roots)
        if size > ABSURD and abs(float(error)) > FAR * root
    }


def without_absurd_energies(frames: Frames, absurd: dict[int, float]) -> Frames:
    """The frames without the labels of these energies."""
    kept = [
        replace(
            frame, labels={name: value for name, value in frame.labels.items() if name != "energy" or k not in absurd}
        )
        for k, frame in enumerate(frames)
    ]
    return replace(frames, frames=kept)


def left_out_errors(
    rows: Tensor, targets: Tensor, normal: Tensor | None = None, right: Tensor | None = None, *, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor]:
    """Errors [n] of robust predictions of energies that are left out, and their sizes [n] in units of the median.

    Parameters
    ----------
    rows, targets : Tensor [n, P], [n]
        Of the energies.
    normal, right : Tensor [P, P], [P], optional
        Sums A^T A and A^T b over the rows of the forces.
    rounds : int
        After the first one, the noise of each energy follows from its error.
    """
    normal = rows.new_zeros(rows.shape[1], rows.shape[1]) if normal is None else normal.clone()
    right = rows.new_zeros(rows.shape[1]) if right is None else right
    normal.diagonal().add_(RIDGE * (normal.diagonal().mean() + rows.square().sum(dim=0).mean()))
    factor = torch.linalg.cholesky(normal)
    columns = torch.linalg.solve_triangular(factor, rows.T, upper=False)
    kernel = columns.T @ columns
    rest = targets - rows @ torch.cholesky_solve(right[:, None], factor)[:, 0]
    noise = torch.ones_like(rest)
    for _ in range(rounds):
        inverse = torch.linalg.inv(kernel + torch.diag(noise))
        variances = 1 / inverse.diagonal()
        errors = variances * (inverse @ rest)
        # the noise that an energy got for its own error must not excuse this error
        sizes = errors.abs() / (variances - noise + 1).clamp(min=1).sqrt()
        sizes = sizes / sizes.median().clamp(min=1e-12)
        noise = 1 + (sizes / WIDTH) ** 2
    return errors, sizes


def _of_forces(model: Model, frames: Frames) -> tuple[Tensor, Tensor] | tuple[()]:
    """Sums over the rows of the forces of some structures; empty where none has forces."""
    having = [k for k, frame in enumerate(frames) if "forces" in frame.labels]
    if not having:
        return ()
    sums = RidgeRegression()
    some = some_of(frames.take(having), ATOMS)
    for k in range(len(some)):
        sums.add(*_rows(model, some.take([k]), "forces"))
    return sums.normal, sums.right


def _rows(model, frames, label):
    """Rows [n, P] and targets [n] of a label, with the weights of a loss of whole structures."""
    loss = EnergyLoss(**{name: (float(name == label),) * 2 for name in ("energy", "forces", "virial")})
    batches = Batches.for_model(model, frames, [label])
    pairs = [weighted_rows(model, batches.batch([k]), loss)[label] for k in range(len(batches))]
    rows, targets = (torch.cat(column) for column in zip(*pairs))
    return rows, targets
