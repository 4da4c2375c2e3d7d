"""First-order response of eigenvalues to errors of Hamiltonian blocks.

With it the loss sees small errors of many elements that add up to large errors of the bands.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.data.hamiltonians import HamiltonianFrame
from ase_mlelec.descriptors.layer_moments import Geometry
from ase_mlelec.physics.kmesh import time_reversal_pairs

REACH = 1.0  # eV: eigenvalues within this distance of the Fermi level or of the edges of the gap count
HALVED = 0.5  # eV from the edges, where errors have half the weight: few eigenvalues decide the gap
LARGEST = 300  # functions; larger cells are compared by their elements alone


def mesh(atoms: Atoms) -> list[int]:
    """Numbers of k-points along the reciprocal vectors: 18 Å / length of the cell vector; one for vectors above 15 Å."""
    return [1 if length > 15 else max(1, round(18 / length)) for length in atoms.cell.lengths()]


def level_responses(
    frame: HamiltonianFrame, n_electrons: int, geometry: Geometry, transforms: Sequence[NDArray]
) -> dict[Any, Tensor]:
    """Derivatives of eigenvalues near the Fermi level with respect to blocks: ``<ψ|∂H(k)/∂h|ψ>`` (Hellmann-Feynman).

    Each is multiplied by the weight of the eigenvalue: 1 between the edges of the gap, smaller farther away.

    Parameters
    ----------
    frame : HamiltonianFrame
        Structure and Hamiltonian with the states ψ.
    n_electrons : int
        Number of electrons; two fill a state.
    geometry : Geometry of the frame
    transforms : list of array [W, W]
        U of every atom: functions of the data = U @ columns.

    Returns
    -------
    dict of Tensor [L, n, W, W'] for L eigenvalues
        Entries by species for on-site blocks, and by kind of pair for hopping. Empty for cells of more than LARGEST
        functions, and where no or all states are filled.
    """
    hamiltonian, filled = frame.hamiltonian, n_electrons // 2
    if hamiltonian.size > LARGEST or not 0 < filled < hamiltonian.size:
        return {}
    kpts = time_reversal_pairs(mesh(frame.atoms))[0]
    energies, states = np.linalg.eigh(hamiltonian.hk(kpts))
    edges = energies[:, filled - 1].max(), energies[:, filled].min()
    away = np.maximum(min(edges) - energies, energies - max(edges)).clip(0)
    k, band = (away < REACH).nonzero()
    chosen = states[k, :, band] * (1 + away[k, band, None] / HALVED) ** -0.5  # [L, functions]
    owners = np.array([function.atom for function in frame.functions])
    columns = [torch.as_tensor(chosen[:, owners == atom] @ transforms[atom]) for atom in range(len(frame.atoms))]
    found = {}
    for species in range(int(geometry.species.max()) + 1):
        atoms = (geometry.species == species).nonzero()[:, 0].tolist()
        if atoms:
            state = torch.stack([columns[atom] for atom in atoms], dim=1)  # [L, n, W]
            found[species] = (state.conj()[:, :, :, None] * state[:, :, None, :]).real.float()
    for key, rows in geometry.groups().items():
        left, right = (
            torch.stack([columns[atom] for atom in index[rows].tolist()], dim=1)
            for index in (geometry.first, geometry.second)
        )
        angle = 2 * np.pi * torch.as_tensor(kpts[k]) @ geometry.shift[rows].double().T
        left = left.conj() * torch.polar(torch.ones_like(angle), angle)[:, :, None]
        # the data have every pair once: its reverse adds the complex conjugate
        found[key] = 2 * (left[:, :, :, None] * right[:, :, None, :]).real.float()
    return found


def level_errors(items: Sequence[Any], differences: Mapping[Any, Tensor]) -> Tensor | None:
    """Weighted first-order errors, eV, of the eigenvalues of several structures; None where no item has responses.

    Parameters
    ----------
    items : sequence of ase_mlelec.train.hamiltonian.items.Item
    differences : dict by species or kind of pair of Tensor [n, W, W']
        Errors, predicted - true, of the blocks of all items, in the order of the items.
    """
    starts, found = dict.fromkeys(differences, 0), []
    for item in items:
        errors: Any = 0
        for key, truth in (item.onsite | item.hopping).items():
            if item.responses:
                block = differences[key][starts[key] : starts[key] + len(truth)]
                errors = errors + item.responses[key].flatten(1) @ block.to(item.responses[key].dtype).flatten()
            starts[key] += len(truth)
        if item.responses:
            found.append(errors.double())  # products are in single precision, sums are not
    return torch.cat(found) if found else None
