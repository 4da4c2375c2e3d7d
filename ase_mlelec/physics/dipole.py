"""Dipole moments of periodic cells: known up to a charge times a lattice vector, and how to stay on one branch.

Moving one electron or ion by a lattice vector a_k changes nothing but the dipole, by its charge times a_k. In terms of
the cell vectors a dipole is M = f h with three *fractional dipoles* f, in e, each of which is known up to an integer.

References: Resta, Rev. Mod. Phys. 66, 899 (1994); King-Smith and Vanderbilt, Phys. Rev. B 47, 1651 (1993).
"""

import torch
from torch import Tensor

from ase_mlelec.physics.arrays import check_finite, numpy_or_torch

_LARGEST_CHANGE = 0.4  # e, of a fractional dipole between frames; from 0.5 on the branch is anybody's guess


@numpy_or_torch
def polarization_quantum(cell: Tensor) -> Tensor:
    """Polarizations e a_k/V that are equivalent to none.

    Parameters
    ----------
    cell : Tensor [..., 3, 3], Å
        Rows.

    Returns
    -------
    Tensor [..., 3, 3], e/Å^2
        Row k is the quantum along cell vector k. Where all ions have even charges and all orbitals hold two electrons
        the quantum is twice as large.

    Raises
    ------
    ValueError
        For a cell without volume.

    References
    ----------
    King-Smith and Vanderbilt, Phys. Rev. B 47, 1651 (1993), Eq. (16).

    Examples
    --------
    >>> import numpy as np
    >>> polarization_quantum(2.0 * np.eye(3)).tolist()
    [[0.25, 0.0, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 0.25]]
    """
    _check_cells(cell)
    return cell / torch.linalg.det(cell).abs()[..., None, None]


@numpy_or_torch
def nearest_branch(dipole: Tensor, reference: Tensor, cell: Tensor) -> Tensor:
    """The branch of a dipole that is nearest to a reference: every fractional dipole within e/2 of the reference's.

    Parameters
    ----------
    dipole, reference : Tensor [..., 3], e Å
    cell : Tensor [..., 3, 3], Å
        Rows.

    Returns
    -------
    Tensor [..., 3], e Å

    Raises
    ------
    ValueError
        For NaN and for a cell without volume.
    """
    _check(dipole, cell)
    check_finite(reference=reference)
    quanta = _fractions(reference - dipole, cell).detach().round()
    return dipole + _times(quanta, cell)


@numpy_or_torch
def unwrap(dipoles: Tensor, cells: Tensor) -> Tensor:
    """Dipoles along a trajectory on the branch of the first frame, without jumps where atoms change their image.

    What is followed are the fractional dipoles, so that the cell may change its size and shape.

    Parameters
    ----------
    dipoles : Tensor [n, 3], e Å
        In the order of time.
    cells : Tensor [3, 3] or [n, 3, 3], Å
        Rows.

    Returns
    -------
    Tensor [n, 3], e Å

    Raises
    ------
    ValueError
        For wrong shapes, NaN, a cell without volume, and for frames so far apart that the branch is in doubt.
    """
    _check_trajectory(dipoles, cells)
    change = _fractions(dipoles, cells).detach().diff(dim=0)
    quanta = change.round()
    rest = (change - quanta).abs()
    if rest.numel() and rest.max() > _LARGEST_CHANGE:
        frame = int(rest.amax(dim=1).argmax())
        raise ValueError(
            f"dipoles: got a change by {rest.max():.2f} e times a cell vector from frame {frame} to "
            f"{frame + 1}, need less than {_LARGEST_CHANGE} to tell the branch; store frames more often, "
            "in the order of time"
        )
    return dipoles - _times(torch.nn.functional.pad(quanta.cumsum(0), (0, 0, 1, 0)), cells)


@numpy_or_torch
def in_mean_cell(dipoles: Tensor, cells: Tensor) -> Tensor:
    """Dipoles along a trajectory as they were if the cell had its mean shape throughout, M h⁻¹ <h>.

    In a breathing cell a dipole on another branch is not only shifted: the shift, a charge times a cell vector, changes
    as the cell does. What this returns does not change with the branch but for a constant, so that spectra and
    fluctuations come from the charges that move relative to the lattice.

    Parameters
    ----------
    dipoles : Tensor [n, 3], e Å
        On one branch (see unwrap).
    cells : Tensor [3, 3] or [n, 3, 3], Å
        Rows.

    Returns
    -------
    Tensor [n, 3], e Å

    Raises
    ------
    ValueError
        For wrong shapes, NaN, and a cell without volume.

    References
    ----------
    Vanderbilt, J. Phys. Chem. Solids 61, 147 (2000), for the proper polarization.
    """
    _check_trajectory(dipoles, cells)
    return dipoles if cells.ndim == 2 else _fractions(dipoles, cells) @ cells.mean(0)


def _fractions(dipole, cell):
    """f of M = f h, e."""
    return torch.linalg.solve(cell, dipole[..., None, :], left=False)[..., 0, :]


def _times(fractions, cell):
    return (fractions[..., None, :] @ cell)[..., 0, :]


def _check(dipole, cell):
    if dipole.shape[-1:] != (3,):
        raise ValueError(f"dipoles: got shape {list(dipole.shape)}, need [..., 3]; give one vector per structure")
    check_finite(dipoles=dipole)
    _check_cells(cell)


def _check_trajectory(dipoles, cells):
    if dipoles.ndim != 2 or len(dipoles) < 1 or (cells.ndim == 3 and len(cells) != len(dipoles)):
        raise ValueError(
            f"dipoles: got shape {list(dipoles.shape)} and cells {list(cells.shape)}, need [n, 3], and "
            "[3, 3] or [n, 3, 3]; give one cell, or one per frame"
        )
    _check(dipoles, cells)


def _check_cells(cells):
    if cells.shape[-2:] != (3, 3) or not torch.isfinite(cells).all() or (torch.linalg.det(cells) == 0).any():
        raise ValueError(
            f"cells: got shape {list(cells.shape)} or a volume of 0, need [..., 3, 3] Å with a volume; a "
            "molecule without a cell has one dipole, which needs no branch"
        )
