"""First-order changes of eigenvalues of a Hamiltonian in slightly different ones."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import processes
from ase_mlelec.bands.interior import DENSE_SIZE
from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.physics import bands, shift_invert
from ase_mlelec.physics.bloch import check_kpts

SAME = 1e-4  # eV; levels closer than this have the mean change of their group, which does not depend on their basis
MARGIN = 8  # levels beyond the wanted ones, for groups that the window cuts


def changes_of_levels(
    hamiltonian: WannierHamiltonian, members: Sequence[WannierHamiltonian], kpts: ArrayLike
) -> tuple[NDArray, NDArray]:
    """Eigenvalues, and their first-order changes ``<n|H_member - H|n>`` in members.

    Parameters
    ----------
    hamiltonian : WannierHamiltonian
    members : sequence of WannierHamiltonian
        With the same functions.
    kpts : array [K, 3]

    Returns
    -------
    energies : array [K, W], eV
    changes : array [n, K, W], eV
        Levels that are degenerate to 1e-4 eV have their mean.

    References
    ----------
    Hellmann-Feynman theorem.
    """

    def both(own):
        energies, states = bands.eigenstates(hamiltonian.bloch, own, device=hamiltonian.device)
        changes = [_by_group(energies, _expected(member, own, states) - energies) for member in members]
        return np.stack([energies, *changes], axis=1)

    found = processes.of_rows(both, check_kpts(kpts)).swapaxes(0, 1)
    return found[0], found[1:]


def changes_of_bands(
    hamiltonian: WannierHamiltonian, members: Sequence[WannierHamiltonian], kpts: ArrayLike, energies: ArrayLike
) -> NDArray:
    """First-order changes [n, K, m], eV, of chosen bands.

    Parameters
    ----------
    hamiltonian, members, kpts
        As in ``changes_of_levels``.
    energies : array [K, m], eV
        Eigenvalues at these points; NaN for none, where the changes are NaN too.
    """

    def of_point(k, wanted):
        chosen, change = np.isfinite(wanted), np.full((len(members), len(wanted)), np.nan)
        if chosen.any():
            levels, states = _states_near(hamiltonian, k, wanted[chosen])
            own = np.stack([_expected(member, k[None], states[None])[0] for member in members]) - levels
            own = np.stack([_by_group(levels[None], each[None])[0] for each in own])
            change[:, chosen] = own[:, abs(levels - wanted[chosen][:, None]).argmin(axis=1)]
        return change

    points = processes.mine(zip(check_kpts(kpts), np.asarray(energies, dtype=float)))
    return np.stack(processes.in_turn([of_point(*point) for point in points]), axis=1)


def _states_near(hamiltonian, k, wanted):
    """(energies, states) at one k-point that hold the wanted levels."""
    if hamiltonian.size <= DENSE_SIZE:
        levels, states = bands.eigenstates(hamiltonian.bloch, k[None], device=hamiltonian.device)
        return levels[0], states[0]
    asked = min(2 * len(wanted) + MARGIN, hamiltonian.size)
    found = shift_invert.eigenpairs(hamiltonian.bloch.sparse(k), 0.5 * (wanted.min() + wanted.max()), asked)
    return found.energies, found.vectors


def _expected(member, kpts, states):
    """Expectation values [K, n] of a Hamiltonian in states [K, W, n]."""
    if member.size > DENSE_SIZE:
        acted = np.stack([member.bloch.sparse(k) @ each for k, each in zip(kpts, states)])
    else:
        acted = (member.bloch.dense(check_kpts(kpts)) @ torch.as_tensor(states).to(torch.complex128)).numpy()
    return np.einsum("kwn,kwn->kn", states.conj(), acted).real


def _by_group(energies, changes):
    """Changes [K, n], the same within each group of degenerate levels."""
    found = changes.copy()
    for k, levels in enumerate(energies):
        starts = np.concatenate([[0], np.flatnonzero(np.diff(levels) > SAME) + 1])
        sizes = np.diff(np.concatenate([starts, [len(levels)]]))
        found[k] = np.repeat(np.add.reduceat(changes[k], starts) / sizes, sizes)
    return found
