"""ASE's results energy, forces and stress from the atomic energies and derivatives of a model."""

import math
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from ase_mlelec import checks, compiled
from ase_mlelec.edges import Edges
from ase_mlelec.long_range import Terms

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # rows and columns in ASE's order
POTENTIAL_PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]


def volume_of(atoms: Atoms) -> float | None:
    """Volume of the cell, Å^3; None where its three vectors span none, whichever directions are periodic."""
    volume = checks.volume_of(atoms.cell.array)
    return volume if volume > 1e-6 * math.prod(math.hypot(*vector) for vector in atoms.cell.tolist()) else None


def has_volume(atoms: Atoms) -> bool:
    """Tell whether the three cell vectors span a volume, whichever directions are periodic."""
    return volume_of(atoms) is not None


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
    parts = energies.double().cpu().numpy()
    energy = float(parts.sum())
    forces, sheared = _sums_by_atom(edges, gradient)
    results: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": parts, "forces": forces}
    if volume is not None:
        results["stresses"] = sheared * (0.5 / volume)
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


def _sums_by_atom(edges, gradient):
    """Forces [N, 3] and sums [N, 6] of vec ⊗ g + g ⊗ vec, arrays."""
    planes = [array.detach().T.double() for array in (edges.vec, gradient)]  # x, y and z
    arrays: list[Any] = [edges.center, edges.neighbor, *planes]
    if edges.vec.device.type == "cpu":
        arrays = [array.numpy() for array in arrays]
        if compiled.is_wanted():
            from ase_mlelec.edges.loops import sums_by_atom  # imports numba

            return sums_by_atom(*map(np.ascontiguousarray, arrays), len(edges.atoms))
    (center, neighbor, vec, slope), n = arrays, len(edges.atoms)
    sheared = [vec[a] * slope[b] + vec[b] * slope[a] for a, b in VOIGT]
    return _sums([*slope], center, n) - _sums([*slope], neighbor, n), _sums(sheared, center, n)


def _sums(rows, index, n):
    """Sums [n, R] of R rows [E] by ``index`` [E], array."""
    if isinstance(index, np.ndarray):  # the sums of NumPy take a fifth of the time
        return np.stack([np.bincount(index, row, n) for row in rows], axis=1)
    table = torch.stack(rows)
    return table.new_zeros(len(rows), n).index_add_(1, index, table).T.cpu().numpy()
