"""ASE's results energy, forces and stress from the atomic energies and derivatives of a model."""

import functools
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from ase_mlelec.edges import Edges
from ase_mlelec.long_range import Terms

POTENTIAL_PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]


def has_volume(atoms: Atoms) -> bool:
    """Tell whether the three cell vectors span a volume, whichever directions are periodic."""
    return atoms.cell.rank == 3 and atoms.get_volume() > 1e-6 * np.prod(atoms.cell.lengths())


def potential_results(energies: Tensor, gradient: Tensor, edges: Edges, *, volume: float | None) -> dict:
    """Make ASE's results from atomic energies and dE/dvec; sums are in float64.

    With g = dE/dvec and vec = r_j - r_i, F_i = sum_ij g_ij - sum_ji g_ji and dE/dε = sum vec ⊗ g.

    Parameters
    ----------
    energies : Tensor [N], eV
    gradient : Tensor [E, 3], eV/Å
    edges : Edges
        Edges of all atoms.
    volume : float, Å^3
        With None there is no stress.

    Returns
    -------
    dict
        Results by ASE's names, in ASE's units and shapes.
    """
    vec, gradient = edges.vec.T.double(), gradient.T.double().contiguous()  # planes [3, E]: faster
    forces = gradient.new_zeros(3, len(edges.atoms))
    forces.index_add_(1, edges.center, gradient).index_add_(1, edges.neighbor, gradient, alpha=-1)
    parts = energies.double().cpu().numpy()
    energy = float(parts.sum())
    results: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": parts,
        "forces": np.ascontiguousarray(forces.cpu().numpy().T),
    }
    if volume is not None:
        first, second = _voigt_components(vec.device)
        sheared = vec.index_select(0, first) * gradient.index_select(0, second)
        sheared = torch.addcmul(sheared, vec.index_select(0, second), gradient.index_select(0, first))
        stresses = sheared.new_zeros(6, len(edges.atoms)).index_add_(1, edges.center, sheared, alpha=0.5 / volume)
        results["stresses"] = np.ascontiguousarray(stresses.cpu().numpy().T)
        results["stress"] = results["stresses"].sum(axis=0)
    return results


def with_long_range(results: dict[str, Any], terms: Terms | None, *, volume: float | None) -> dict[str, Any]:
    """ASE's results of a model with its long range; it has no stresses by atom.

    Parameters
    ----------
    results : dict
        Results without the long range.
    terms : Terms or None
        The long range of the structure; with None the results are returned as they are.
    volume : float, Å^3
        With None there is no stress.
    """
    if terms is None:
        return results
    energies, forces, virials = (part.detach().cpu().numpy() for part in terms)
    energy = results["energy"] + float(energies.sum())
    changed = {"energies": results["energies"] + energies, "forces": results["forces"] + forces}
    if volume is not None:
        changed["stress"] = results["stress"] - full_3x3_to_voigt_6_stress(virials[0]) / volume
    return {"energy": energy, "free_energy": energy, **changed}


@functools.lru_cache
def _voigt_components(device):
    """Rows and columns, Tensor [6] each, of the elements of a symmetric matrix in Voigt order."""
    return torch.tensor([0, 1, 2, 1, 0, 0], device=device), torch.tensor([0, 1, 2, 2, 2, 1], device=device)
