"""Statistics of atomic densities of states (ADOS), and the geometry they are compared with.

The order parameter Q itself is ``ase_mlelec.physics.dos.order_parameter``. For the ADOS of thousands of atoms in many
structures, which may not fit into memory, there is ``RunningComponents``::

    run = evaluate(calc, "melting.extxyz", ["ados", "order_parameter"], out="melting.h5")
    parts = components_of_run(run)
    scores = scores_of_run(run, parts)      # array [n, N, 2]
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from scipy.signal import find_peaks

from ase_mlelec.analysis.result_file import joined
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
    _check_finite(rows)
    _check_number(*rows.shape, n_components)
    mean = rows.mean(axis=0)
    _, singular, components = np.linalg.svd(rows - mean, full_matrices=False)
    total = max((singular**2).sum(), np.finfo(float).tiny)
    return PrincipalComponents(mean, _signed(components)[:n_components], (singular**2 / total)[:n_components])


def _signed(components):
    """Components with their largest entry positive: their sign is open otherwise."""
    peak = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return components * np.where(peak < 0, -1.0, 1.0)


class RunningComponents:
    r"""Principal components of spectra that come piece by piece, in memory that does not grow with their number.

    Sums over spectra are kept, the number n, the mean m and the scatter matrix M; those of two parts, a and b, are
    joined exactly:

    .. math::

        m = m_a + \frac{n_b}{n} d, \qquad M = M_a + M_b + \frac{n_a n_b}{n} d d^T, \qquad d = m_b - m_a

    The result therefore depends on the pieces and on their order by rounding alone. Parts of several processes or files
    are joined by ``merge``.

    Attributes
    ----------
    n_spectra : int
    mean : array [S], states/eV
    scatter : array [S, S], (states/eV)^2
        Sum of the squares and products of differences from the mean.

    References
    ----------
    Chan, Golub, LeVeque, Am. Stat. 37, 242 (1983), Eq. (2.1), for matrices.
    """

    def __init__(self) -> None:
        self.n_spectra = 0
        self.mean, self.scatter = np.zeros(0), np.zeros((0, 0))

    def add(self, ados: ArrayLike) -> Self:
        """Add spectra [..., S], states/eV; leading axes are joined.

        Raises
        ------
        ValueError
            For NaN, and for another number of points than before.
        """
        rows = np.asarray(ados, dtype=float)
        rows = rows.reshape(-1, rows.shape[-1])
        _check_finite(rows)
        part = type(self)()
        if len(rows):
            part.n_spectra, part.mean = len(rows), rows.mean(axis=0)
            away = rows - part.mean
            part.scatter = away.T @ away
        return self.merge(part)

    def merge(self, other: Self) -> Self:
        """Add the spectra of another one.

        Raises
        ------
        ValueError
            For spectra of another number of points.
        """
        if not (self.n_spectra and other.n_spectra):
            if other.n_spectra:
                self.n_spectra, self.mean, self.scatter = other.n_spectra, other.mean.copy(), other.scatter.copy()
            return self
        if len(other.mean) != len(self.mean):
            raise ValueError(f"got spectra of {len(other.mean)} points after some of {len(self.mean)}; use one grid")
        total, away = self.n_spectra + other.n_spectra, other.mean - self.mean
        self.scatter += other.scatter + np.outer(away, away) * (self.n_spectra * other.n_spectra / total)
        self.mean += away * (other.n_spectra / total)
        self.n_spectra = total
        return self

    def components(self, n_components: int = 2) -> PrincipalComponents:
        """The components of all spectra so far, as ``principal_components`` has them.

        Raises
        ------
        ValueError
            For fewer than two spectra, and more components than spectra or points.
        """
        _check_number(self.n_spectra, len(self.mean), n_components)
        variance, vectors = np.linalg.eigh(self.scatter)
        fraction = variance.clip(min=0)[::-1] / max(np.trace(self.scatter), np.finfo(float).tiny)
        return PrincipalComponents(self.mean.copy(), _signed(vectors.T[::-1])[:n_components], fraction[:n_components])


def _check_finite(rows):
    if not np.isfinite(rows).all():
        raise ValueError("ados: got NaN or infinity, need finite numbers; leave out the padding of smaller structures")


def _check_number(n_spectra, n_points, n_components):
    if n_spectra < 2 or not 1 <= n_components <= min(n_spectra, n_points):
        raise ValueError(
            f"got {n_spectra} spectra of {n_points} points for {n_components} components, need at "
            "least two spectra and no more components than spectra or points; give more snapshots"
        )


def spectra_of_run(run: Mapping[str, NDArray]) -> Iterator[NDArray]:
    """Iterate over the ADOS [N, S], states/eV, of the structures of a run, a few of them in memory at a time.

    Parameters
    ----------
    run : mapping
        What ``evaluate`` returns for the quantity "ados", or the ``results`` of an ElectronicRecorder.
    """
    pieces = run.pieces("n_atoms", "ados") if hasattr(run, "pieces") else [run]
    for piece in pieces:
        for n_atoms, ados in zip(piece["n_atoms"], piece["ados"]):
            yield ados[:n_atoms]  # without the padding


def components_of_run(run: Mapping[str, NDArray], n_components: int = 2) -> PrincipalComponents:
    """Principal components of the ADOS of all atoms in a run; see ``spectra_of_run`` for what a run is."""
    found = RunningComponents()
    for ados in spectra_of_run(run):
        found.add(ados)
    return found.components(n_components)


def scores_of_run(run: Mapping[str, NDArray], parts: PrincipalComponents) -> NDArray:
    """Scores [n, N, K], states/eV, of all atoms in a run along components; smaller structures are filled up with NaN."""
    return joined("ados", [parts.scores(ados)[None] for ados in spectra_of_run(run)])


def minima_of_dos(
    energies: ArrayLike, dos: ArrayLike, fermi_level: float, *, n_minima: int = 3, above: float = 1.0
) -> tuple[float, ...]:
    """Energies of the deepest local minima of a DOS among the occupied states, for an order parameter.

    In a crystal, minima lie between bands; they are filled in a liquid. Give the DOS of the crystal.

    Parameters
    ----------
    energies : array [S], eV, increasing
    dos : array [S], states/eV
        Of any number of atoms.
    fermi_level : float, eV
    n_minima : int
        The number of minima, at most; those of the largest prominence, and of at least 2 % of the largest DOS.
    above : float, eV
        Minima as far above the Fermi level count as well: the level lies near the middle of a gap, or at its edge.

    Returns
    -------
    tuple of float, eV
        Relative to the Fermi level, descending: the ``offsets`` of ``DeepDOSCalculator.get_order_parameter``.

    Raises
    ------
    ValueError
        Where there is no minimum.

    References
    ----------
    Zeng et al. 2022, Sec. VI and Fig. 5.
    """
    energies, dos = np.asarray(energies, dtype=float), np.asarray(dos, dtype=float)
    places, known = find_peaks(-dos, prominence=0.02 * dos.max())
    occupied = energies[places] <= fermi_level + above
    places, prominence = places[occupied], known["prominences"][occupied]
    if not len(places):
        raise ValueError(
            "dos: got no local minimum among the occupied states; give the DOS of a crystal, or the energies"
        )
    deepest = places[np.argsort(-prominence)[:n_minima]]
    return tuple(sorted((_vertex(energies, dos, k) - fermi_level for k in deepest), reverse=True))


def _vertex(energies, dos, k):
    """Energy at which the parabola through three points of a DOS around its k-th one has its vertex."""
    curvature, slope, _ = np.polyfit(energies[k - 1 : k + 2] - energies[k], dos[k - 1 : k + 2], 2)
    return float(energies[k] - slope / (2 * curvature)) if curvature > 0 else float(energies[k])


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
