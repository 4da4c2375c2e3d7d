"""How levels answer to errors of the blocks of a Hamiltonian, to first order: small errors that add up are seen."""

import numpy as np
import torch

from ase_mlelec.physics.kmesh import time_reversal_pairs

REACH = 1.0  # eV, of the levels below and above the Fermi level or the edges of the gap
HALVED = 0.5  # eV from the edges, where errors count half: few levels decide the gap
LARGEST = 300  # functions; of larger cells elements alone are compared


def mesh(atoms):
    """Points along the reciprocal vectors, about 18 Å over the length of a cell's vector; one where that is vacuum."""
    return [1 if length > 15 else max(1, round(18 / length)) for length in atoms.cell.lengths()]


def level_responses(frame, n_electrons, geometry, transforms):
    """Derivatives of levels near the Fermi level by the blocks of a head: ``<ψ|∂H(k)/∂h|ψ>`` (Hellmann and
    Feynman), times what errors of a level count: 1 at the edges of the gap and between them, less farther away.

    Parameters
    ----------
    frame : HamiltonianFrame
        Whose states ψ are taken.
    n_electrons : int
        Two to a state.
    geometry : Geometry of the frame
    transforms : list of array [W, W]
        U of every atom: functions of the data = U @ columns.

    Returns
    -------
    dict of Tensor [L, n, W, W'] for L levels
        Of on-site blocks by species, of hopping by group; empty for cells of more than LARGEST functions and where
        nothing or everything is filled.
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
        own = (geometry.species == species).nonzero()[:, 0].tolist()
        if own:
            state = torch.stack([columns[atom] for atom in own], dim=1)  # [L, n, W]
            found[species] = (state.conj()[:, :, :, None] * state[:, :, None, :]).real.float()
    for key, rows in geometry.groups().items():
        left, right = (
            torch.stack([columns[atom] for atom in index[rows].tolist()], dim=1)
            for index in (geometry.first, geometry.second)
        )
        angle = 2 * np.pi * torch.as_tensor(kpts[k]) @ geometry.shift[rows].double().T
        left = left.conj() * torch.polar(torch.ones_like(angle), angle)[:, :, None]
        # every pair once: its reverse adds the complex conjugate
        found[key] = 2 * (left[:, :, :, None] * right[:, :, None, :]).real.float()
    return found


def level_errors(items, differences):
    """First-order errors of the levels of several structures, Tensor, eV, times what they count; None where no item has
    responses.

    Parameters
    ----------
    items : sequence of ase_mlelec.train.hamiltonian.items.Item
    differences : dict by species and group of Tensor [n, W, W']
        Predicted - true blocks of all items in their order.
    """
    starts, found = dict.fromkeys(differences, 0), []
    for item in items:
        errors = 0
        for key, truth in (item.onsite | item.hopping).items():
            if item.responses:
                block = differences[key][starts[key] : starts[key] + len(truth)]
                errors = errors + item.responses[key].flatten(1) @ block.to(item.responses[key].dtype).flatten()
            starts[key] += len(truth)
        if item.responses:
            found.append(errors)
    return torch.cat(found) if found else None
