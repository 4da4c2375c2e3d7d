"""Statistics of atomic densities of states (ADOS), and the geometry they are compared with.

The order parameter Q itself is ``ase_mlelec.physics.dos.order_parameter``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.edges import Edges
from ase_mlelec.system import System


@dataclass(frozen=True)
class PrincipalComponents:
    """The directions in which spectra vary most: g ≈ mean + scores @ components.

    Attributes
    ----------
    mean : array [S], states/eV
    components : array [K, S]
        Orthonormal rows, the largest entry of each positive.
    explained_variance : array [K]
        The fraction of the total variance along each component, descending.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray

    def scores(self, ados: ArrayLike) -> NDArray:
        """Coordinates [..., K] of spectra [..., S] along the components, states/eV."""
        return (np.asarray(ados) - self.mean) @ self.components.T

    def spectra(self, scores: ArrayLike) -> NDArray:
        """Spectra [..., S] at coordinates [..., K], states/eV."""
        return self.mean + np.asarray(scores) @ self.components


def principal_components(ados: ArrayLike, n_components: int = 2) -> PrincipalComponents:
    """Principal component analysis of the ADOS of any number of atoms and snapshots.

    Parameters
    ----------
    ados : array [..., S], states/eV
        Leading axes are joined.
    n_components : int

    Raises
    ------
    ValueError
        For fewer than two spectra, NaN, or more components than spectra or grid points.

    References
    ----------
    Zeng et al. 2022, Sec. VI.
    """
    rows = np.asarray(ados, dtype=float)
    rows = rows.reshape(-1, rows.shape[-1])
    if not np.isfinite(rows).all():
        raise ValueError("ados: got NaN or infinity, need finite numbers; leave out the padding of smaller structures")
    if len(rows) < 2 or not 1 <= n_components <= min(rows.shape):
        raise ValueError(
            f"got {len(rows)} spectra of {rows.shape[-1]} points for {n_components} components, need at "
            "least two spectra and no more components than spectra or points; give more snapshots"
        )
    mean = rows.mean(axis=0)
    _, singular, components = np.linalg.svd(rows - mean, full_matrices=False)
    # an SVD leaves the sign open
    peak = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    total = max((singular**2).sum(), np.finfo(float).tiny)
    return PrincipalComponents(
        mean, (components * np.where(peak < 0, -1.0, 1.0))[:n_components], (singular**2 / total)[:n_components]
    )


def coordination(atoms: Atoms, radius: float, width: float = 0.0) -> NDArray:
    r"""Coordination number of every atom: neighbors within ``radius``, periodic images included.

    .. math::

        n_i = \sum_j w(r_{ij})

    with w = 1 below radius - width/2, 0 above radius + width/2, and (1 + cos πx)/2 between them.

    Parameters
    ----------
    atoms : ase.Atoms
    radius : float, Å
        2.9 lies between the first two shells of silicon, crystalline and liquid.
    width : float, Å
        0 counts neighbors, more makes the number continuous along a trajectory.

    Returns
    -------
    array [N]

    Raises
    ------
    ValueError
        For a radius or width that makes no sense.

    Examples
    --------
    >>> from ase.build import bulk
    >>> coordination(bulk("Si"), radius=2.9).tolist()
    [4.0, 4.0]
    """
    if not (radius > 0 and 0 <= width <= 2 * radius):
        raise ValueError(f"got radius {radius:g} Å and width {width:g} Å, need radius > 0 and 0 <= width <= 2 radius")
    edges = Edges.build(System.from_atoms(atoms), radius + width / 2)
    distance = edges.distances
    weight = torch.ones_like(distance)
    if width > 0:
        x = ((distance - radius) / width + 0.5).clamp(min=0)
        weight = 0.5 * (1 + torch.cos(np.pi * x))
    return torch.zeros(len(atoms), dtype=weight.dtype).index_add(0, edges.center, weight).numpy()
