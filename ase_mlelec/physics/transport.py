"""Response of electrons in bands: Boltzmann conductivity, joint density of states, Berry curvature, Hall conductivity.

Conductivity and joint DOS follow from H(R) alone. The position operator between Wannier functions, ``<0|r|R>``, is
needed for Berry curvature; without it the terms that come from H(k) alone are left. They depend on the choice of the
home cells of the functions at a single k-point, while their integral over filled bands does not.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import units
from ase_mlelec.physics.bands import DEGENERATE, velocity_matrices
from ase_mlelec.physics.bloch import BlochSum
from ase_mlelec.physics.levels import density_of_states, occupations

_HBAR = units.PLANCK / (2 * np.pi)  # eV fs
_PLANES = ((1, 2), (2, 0), (0, 1))  # components of an axial vector: yz, zx, xy
_BATCH = 2**20  # complex numbers in one matrix of a batch; about twenty are alive at a time


def _batches(n_kpts, size):
    step = max(1, _BATCH // size**2)
    return (slice(start, start + step) for start in range(0, n_kpts, step))


def drude_weight(
    bloch: BlochSum,
    cell: NDArray,
    kpts: NDArray,
    weights: NDArray,
    fermi_level: float,
    temperature: float,
    degeneracy: int = 2,
    device: str | torch.device = "cpu",
) -> NDArray:
    """Drude weight, D_ab = g/V Σ_k w_k Σ_n (-df/dE) dE/dk_a dE/dk_b, whose product with e²τ/ħ² is the conductivity.

    Within degenerate levels the product of slopes is the trace of the product of the velocity operators.

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    cell : array [3, 3], Å
        Rows.
    kpts, weights : arrays [K, 3] and [K]
        A mesh over the whole zone or half of it by time reversal; a mesh reduced by rotations gives the tensor only
        after averaging over them.
    fermi_level : float, eV
    temperature : float, K
        Above 0: the window -df/dE has to hold some levels of the mesh.
    degeneracy
        Electrons per state, 2 without spin.

    Returns
    -------
    array [3, 3], eV/Å

    Raises
    ------
    ValueError
        For a temperature that is not positive.

    References
    ----------
    Pizzi et al. 2014, Comput. Phys. Commun. 185, 422, Eq. (5).
    """
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature:g} K, need more than 0; the window -df/dE needs a width")
    total = np.zeros((3, 3))
    for batch in _batches(len(kpts), bloch.size):
        energies, _, matrices = velocity_matrices(bloch, kpts[batch], cell, device)
        filling = occupations(energies, fermi_level, temperature)
        window = filling * (1 - filling) / (units.KB * temperature) * np.asarray(weights)[batch, None]
        together = abs(energies[:, :, None] - energies[:, None, :]) < DEGENERATE
        total += np.einsum("kn,kamn,kbnm,kmn->ab", window, matrices, matrices, together, optimize=True).real
    return degeneracy * total / abs(np.linalg.det(cell))


def conductivity(drude: NDArray, relaxation_time: float) -> NDArray:
    """Conductivity of a Drude weight, σ = e²τ/ħ² D.

    Parameters
    ----------
    drude : array [3, 3], eV/Å
    relaxation_time : float, fs

    Returns
    -------
    array [3, 3], S/m
    """
    return np.asarray(drude) * relaxation_time / _HBAR**2 / units.SIEMENS_PER_METRE


def joint_density_of_states(
    energies: ArrayLike,
    levels: NDArray,
    weights: NDArray,
    fermi_level: float,
    temperature: float,
    width: float,
    degeneracy: int = 2,
) -> NDArray:
    """Joint density of states, J(ω) = g Σ_k w_k Σ_mn f_m (1 - f_n) δ(E_n - E_m - ω), Gaussians exp(-(x/width)²).

    Parameters
    ----------
    energies : array [S], eV
        ω.
    levels : array [K, n], eV
    weights : array [K]
        Adding up to 1.
    fermi_level : float, eV
    temperature : float, K
    width : float, eV
    degeneracy
        Pairs per pair of bands; spin is kept, so that it is 2 without spin.

    Returns
    -------
    array [S], 1/eV

    Raises
    ------
    ValueError
        For a width that is not positive.
    """
    levels = np.asarray(levels, dtype=float)
    filling = occupations(levels, fermi_level, temperature)
    filled, empty = filling > 1e-12, filling < 1 - 1e-12
    pairs, share = [np.zeros(0)], [np.zeros(0)]
    for level, f, below, above, weight in zip(levels, filling, filled, empty, weights):
        apart = ~np.eye(len(level), dtype=bool)[np.ix_(below, above)]
        pairs.append((level[above] - level[below][:, None])[apart])
        share.append((weight * f[below][:, None] * (1 - f[above]))[apart])
    return density_of_states(energies, np.concatenate(pairs)[:, None], np.concatenate(share), width, degeneracy)


def _curvature_parts(bloch, cell, kpts, positions, device):
    """Energies [K, W] and, per plane, (curvature of each band [K, W], what exchanges between bands [K, W, W])."""
    energies, states, slopes = velocity_matrices(bloch, kpts, cell, device)
    difference = energies[:, None, :] - energies[:, :, None]  # E_n - E_m for m, n
    near = abs(difference) < DEGENERATE
    mixing = np.where(near[:, None], 0, slopes / np.where(near, 1, difference)[:, None])  # <m|dn/dk>
    planes = []
    if positions is not None:
        connection = _rotated(states, torch.stack([part.dense(kpts, device) for part in positions], dim=1))
        gradients = [part.gradient(kpts, cell, device) for part in positions]
    for a, b in _PLANES:
        # pairs m, n: -i (D_a D_b - D_b D_a) and, with positions, -(D_a A_b - A_b D_a) + (D_b A_a - A_a D_b), diagonals
        exchange = _product(mixing[:, a], mixing[:, b], -1j)
        band = np.zeros(energies.shape)
        if positions is not None:
            exchange = (
                exchange - _product(mixing[:, a], connection[:, b], 1) + _product(mixing[:, b], connection[:, a], 1)
            )
            band = np.einsum("knn->kn", _rotated(states, (gradients[b][:, a] - gradients[a][:, b])[:, None])[:, 0]).real
        planes.append((band, exchange))
    return energies, planes


def _product(left, right, factor):
    """factor (L_nm R_mn - R_nm L_mn), array [K, n, m], real; its sum over m is the diagonal of factor [L, R]."""
    return (factor * (left * right.swapaxes(1, 2) - right * left.swapaxes(1, 2))).real


def _rotated(states, matrices):
    """Matrices [K, A, W, W] between the states [K, W, W]."""
    states = torch.from_numpy(states).to(matrices.device)[:, None]
    return (states.mH @ matrices @ states).cpu().numpy()


def berry_curvature(
    bloch: BlochSum,
    cell: NDArray,
    kpts: ArrayLike,
    positions: Sequence[BlochSum] | None = None,
    device: str | torch.device = "cpu",
) -> tuple:
    """Berry curvature of every band, Ω = ∇ x ``<u|i∇|u>``.

    With D = ``<m|dn/dk>`` from H(k), A(k) = Σ_R exp(2πi k·R) ``<0|r|R>`` between the states, and its curl, Ω_ab =
    (dA_b/dk_a - dA_a/dk_b) - [D_a, A_b] + [D_b, A_a] - i [D_a, D_b]; the last term alone without positions.

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    cell : array [3, 3], Å
        Rows.
    kpts : array [K, 3]
        Reduced coordinates.
    positions : three BlochSums of <0|r|R> in Å, or None

    Returns
    -------
    energies : array [K, W], eV, ascending
    curvature : array [K, W, 3], Å^2
        The axial vector yz, zx, xy. Terms between degenerate levels are left out: only the sum over such levels means
        something.

    References
    ----------
    Wang et al. 2006, Phys. Rev. B 74, 195118, Eq. (27).
    """
    kpts = np.asarray(kpts, dtype=float)
    energies, curvature = np.empty((len(kpts), bloch.size)), np.empty((len(kpts), bloch.size, 3))
    for batch in _batches(len(kpts), bloch.size):
        energies[batch], planes = _curvature_parts(bloch, cell, kpts[batch], positions, device)
        curvature[batch] = np.stack([band + exchange.sum(2) for band, exchange in planes], axis=-1)
    return energies, curvature


def hall_conductivity(
    bloch: BlochSum,
    cell: NDArray,
    kpts: NDArray,
    weights: NDArray | None,
    fermi_level: float,
    temperature: float,
    degeneracy: int = 2,
    positions: Sequence[BlochSum] | None = None,
    device: str | torch.device = "cpu",
) -> NDArray:
    """Intrinsic anomalous Hall conductivity, σ = -(e²/ħ) g/V Σ_k w_k Σ_n f_n Ω_n.

    Pairs of bands enter with the difference of their occupations, so that crossings of filled bands do not matter.

    Parameters
    ----------
    bloch, cell, positions
        As in berry_curvature.
    kpts : array [K, 3]
        A mesh over the whole zone.
    weights : array [K], or None for equal ones
    fermi_level : float, eV
    temperature : float, K
    degeneracy
        Electrons per state, 2 without spin.

    Returns
    -------
    array [3], S/m
        The axial vector (yz, zx, xy). Times the height of the cell it is the sheet conductivity of a layer: a Chern
        number C of the filled bands of one spin is -C e²/h.

    References
    ----------
    Wang et al. 2006, Phys. Rev. B 74, 195118, Eqs. (2), (32).
    """
    weights = np.full(len(kpts), 1 / len(kpts)) if weights is None else np.asarray(weights)
    total = np.zeros(3)
    for batch in _batches(len(kpts), bloch.size):
        energies, planes = _curvature_parts(bloch, cell, kpts[batch], positions, device)
        filling = occupations(energies, fermi_level, temperature)
        apart = filling[:, :, None] - filling[:, None, :]
        for axis, (band, exchange) in enumerate(planes):
            # the exchange terms are antisymmetric in n, m: half of the sum with the difference of occupations
            total[axis] += weights[batch] @ ((filling * band).sum(1) + 0.5 * (apart * exchange).sum((1, 2)))
    return -degeneracy * total / (abs(np.linalg.det(cell)) * _HBAR) / units.SIEMENS_PER_METRE
