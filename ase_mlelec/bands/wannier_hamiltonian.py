"""Tight-binding Hamiltonian between Wannier functions, with its cell and files, and quantities that follow from it."""

import functools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import processes
from ase_mlelec.bands import interior
from ase_mlelec.bands.files import guessed_spin, write_hamiltonian
from ase_mlelec.bands.paths import band_path
from ase_mlelec.bands.response import Response
from ase_mlelec.deprecated import formerly_positional, renamed_arguments, renamed_attribute
from ase_mlelec.io import wannier90
from ase_mlelec.physics import bands, bloch
from ase_mlelec.physics.bloch import BlochSum, check_kpts, hermitian_part

COUPLED = 1e-6  # eV; elements below it do not make a direction one of bands


class WannierHamiltonian(Response):
    """Hamiltonian H(R) between Wannier functions or other orthogonal orbitals, with H(k) = Σ_R exp(2πi k·R) H(R).

    Arrays [K, 3] of k-points are in reduced coordinates. The phase depends on lattice vectors, not on centers.

    Parameters
    ----------
    cell : array [3, 3], Å
        Vectors in rows.
    r_vectors : array [R, 3] of int
        Every R with its -R.
    matrices : array [R, W, W] or sequence of R sparse matrices, eV
        <m 0|H|n R>.
    centers : array [W, 3], Å
        Zero where unknown (energies do not depend on them).
    positions : array [R, W, W, 3], Å
        <m 0|r|n R>, or None; Berry curvature needs it.
    spin_degeneracy : int
        2 without spin, 1 for spinors or one spin channel.
    device : torch device
        Device for dense eigenproblems; default CUDA where it is present.

    Raises
    ------
    ValueError
        For shapes that do not match, NaN, and H(R) that deviates from Hermitian by more than 1e-4 eV.
    """

    centres = renamed_attribute("centres", "centers")

    @formerly_positional("centers")
    @renamed_arguments(centres="centers")
    def __init__(
        self,
        cell: ArrayLike,
        r_vectors: ArrayLike,
        matrices: Any,
        *,
        centers: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        spin_degeneracy: int = 2,
        device: str | torch.device | None = None,
    ) -> None:
        self.cell = _finite("cell", cell, (3, 3), "three independent vectors [3, 3], Å")
        if not abs(np.linalg.det(self.cell)) > 0:
            raise ValueError("cell: got shape [3, 3], need three independent vectors [3, 3], Å")
        self.bloch = BlochSum(r_vectors, matrices)
        size = self.bloch.size
        self.centers = (
            np.zeros((size, 3))
            if centers is None
            else _finite("centers", centers, (size, 3), f"[{size}, 3]; one per function")
        )
        self.position_blochs = None
        if positions is not None:
            shape = len(np.asarray(r_vectors)), size, size, 3
            given = _finite("positions", positions, shape, f"{list(shape)}; give <0|r|R> for every R", complex)
            # Wannier90 makes <0|r|R> by finite differences, which are not exactly Hermitian
            self.position_blochs = [BlochSum(*hermitian_part(r_vectors, given[..., axis])) for axis in range(3)]
        if spin_degeneracy not in (1, 2):
            raise ValueError(
                f"spin_degeneracy: got {spin_degeneracy!r}, need 2 without spin, 1 for spinors or one spin"
            )
        self.spin_degeneracy = spin_degeneracy
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    def __repr__(self) -> str:
        return (
            f"WannierHamiltonian({self.size} functions, {len(self.r_vectors)} lattice vectors, "
            f"{self.bloch.stacked.nnz} elements{'' if self.position_blochs else ', no <0|r|R>'})"
        )

    @property
    def size(self) -> int:
        """Number of functions W."""
        return self.bloch.size

    @property
    def r_vectors(self) -> NDArray:
        """Lattice vectors [R, 3], integers, sorted so that -R is at the mirrored place of R."""
        return self.bloch.r_vectors

    @functools.cached_property
    def matrices(self) -> NDArray | list:
        """H(R), eV: array [R, W, W], or list of CSR matrices where few elements are not zero."""
        return self.bloch.matrices

    @property
    def positions(self) -> NDArray | None:
        """``<m 0|r|n R>``, Å, array [R, W, W, 3], or None."""
        if self.position_blochs is None:
            return None
        return np.stack([_in_order(each, self.r_vectors) for each in self.position_blochs], axis=-1)

    @property
    def pbc(self) -> NDArray:
        """Directions [3] in which functions of different cells are coupled."""
        return np.asarray(self.r_vectors.any(0))

    def _coupled(self):
        """Directions [3] in which functions of different cells are coupled by more than COUPLED."""
        elements = self.bloch.stacked.tocoo()
        return self.r_vectors[elements.row[abs(elements.data) > COUPLED] // self.size].any(axis=0)

    # Files

    @classmethod
    @formerly_positional("spin_degeneracy")
    def read(cls, path: str | os.PathLike, *, spin_degeneracy: int | None = None) -> "WannierHamiltonian":
        """Read ``seed_hr.dat`` or ``seed_tb.dat`` of Wannier90, with related files in the same folder.

        ``seed_wsvec.dat`` holds the images of minimal distance.  For ``_hr.dat``, ``seed.win``, ``seed.wout`` or
        ``seed_tb.dat`` gives the cell, ``seed.wout`` or ``seed_centres.xyz`` the centers.  Files may be compressed.

        One warning names everything that is missing or was guessed (images, centers, spin degeneracy), and files that
        were ignored because they are damaged or of another run.

        Parameters
        ----------
        path : path
        spin_degeneracy : 1 or 2
            Default: from ``seed.win``, or, without this file, guessed from the eigenvalues.

        Raises
        ------
        Wannier90Error
            For a damaged Hamiltonian, and where no file has a cell.
        """
        run = wannier90.read_run(path)
        found = run.hamiltonian
        spin = spin_degeneracy or run.spin_degeneracy
        hamiltonian = cls(
            run.cell,
            found.r_vectors,
            found.matrices,
            centers=run.centers,
            positions=found.positions,
            spin_degeneracy=spin or 2,
        )
        notes = list(run.notes)
        if spin is None:
            hamiltonian.spin_degeneracy, note = guessed_spin(
                path, bloch=hamiltonian.bloch, pbc=hamiltonian.pbc, has_input=run.has_input
            )
            notes += [note] if note else []
        if notes:
            warnings.warn("; ".join(notes), stacklevel=3)
        return hamiltonian

    def write(self, path: str | os.PathLike) -> None:
        """Write ``seed_hr.dat`` (H(R) only) or ``seed_tb.dat`` (cell and <0|r|R> too), images folded in.

        Raises
        ------
        ValueError
            For another name, and for ``_tb.dat`` without <0|r|R>.
        """
        write_hamiltonian(
            path, cell=self.cell, bloch=self.bloch, positions=self.positions, spin_degeneracy=self.spin_degeneracy
        )

    @classmethod
    @formerly_positional("r_vectors", "which", "row", "column", "values", "centers")
    @renamed_arguments(value="values", centres="centers")
    def from_elements(
        cls,
        cell: ArrayLike,
        *,
        r_vectors: ArrayLike,
        which: NDArray,
        row: NDArray,
        column: NDArray,
        values: NDArray,
        centers: ArrayLike,
        spin_degeneracy: int = 2,
        device: str | torch.device | None = None,
    ) -> "WannierHamiltonian":
        """Make a Hamiltonian from single elements <m 0|H|n R>.

        Parameters
        ----------
        cell : array [3, 3], Å
        r_vectors : array [R, 3] of int
        which : array [M] of int
            Place of R in ``r_vectors`` for every element.
        row, column : array [M] of int
            Function m of the home cell and function n of the cell at R, for every element.
        values : array [M], eV
        centers : array [W, 3], Å
        spin_degeneracy, device
            As in the constructor.
        """
        matrices = bloch.from_elements(len(np.asarray(r_vectors)), len(np.asarray(centers)), which, row, column, values)
        return cls(cell, r_vectors, matrices, centers=centers, spin_degeneracy=spin_degeneracy, device=device)

    def moved(self, cells: ArrayLike) -> "WannierHamiltonian":
        """Choose other home cells of the functions: function n moves by whole cells.

        Parameters
        ----------
        cells : array [W, 3] of int
            Shifts, for instance those that bring centers next to their atoms.

        Returns
        -------
        WannierHamiltonian
            Hamiltonian with the same eigenvalues, without <0|r|R>.
        """
        cells = np.asarray(cells, dtype=int)
        elements = self.bloch.stacked.tocoo()
        which, row = np.divmod(elements.row.astype(np.int64), self.size)
        # <m s_m|H|n R> is <m 0|H|n R - s_m>, and n counts from s_n
        r_vectors, place = np.unique(
            self.r_vectors[which] + cells[row] - cells[elements.col], axis=0, return_inverse=True
        )
        return WannierHamiltonian.from_elements(
            self.cell,
            r_vectors=r_vectors,
            which=place.ravel(),
            row=row,
            column=elements.col,
            values=elements.data,
            centers=self.centers + cells @ self.cell,
            spin_degeneracy=self.spin_degeneracy,
            device=self.device,
        )

    # Energies

    def hk(self, kpts: ArrayLike) -> NDArray:
        """Compute H(k), array [K, W, W], eV, exactly Hermitian."""
        return self.bloch.dense(check_kpts(kpts)).numpy()

    @formerly_positional("n_bands", "window")
    def eigenvalues(
        self, kpts: ArrayLike, *, n_bands: int | None = None, window: Sequence[float] | None = None
    ) -> NDArray:
        """Find the eigenvalues at k-points, ascending.

        A few bands of a large Hamiltonian are found by shift-invert Lanczos iteration, all bands of a small Hamiltonian
        by diagonalization.

        Parameters
        ----------
        kpts : array [K, 3]
        n_bands : int
            Number of bands: the lowest ones, or, with a window, the bands nearest to its middle at the first k-point.
        window : (low, high), eV
            Without n_bands: all bands that enter the window at one of the k-points, NaN where they are outside.

        Returns
        -------
        array [K, n], eV
            A column is the same band (counted from below) at every point.

        Raises
        ------
        ValueError
            For kpts that are not [K, 3], more bands than functions, and a window that is not low < high.
        """
        return interior.eigenvalues(self.bloch, check_kpts(kpts), n_bands=n_bands, window=window, device=self.device)

    def velocities(self, kpts: ArrayLike) -> NDArray:
        """Compute the slopes dE/dk of all bands, array [K, W, 3], eV Å; divide by ħ for a velocity.

        Degenerate eigenvalues are split along each direction separately, with ascending slopes.
        """
        return processes.of_rows(
            lambda own: bands.velocities(self.bloch, own, self.cell, device=self.device)[1], check_kpts(kpts)
        )

    @formerly_positional("groups")
    def projections(self, kpts: ArrayLike, *, groups: Sequence[Sequence[int]]) -> tuple[NDArray, NDArray]:
        """Compute the weight of groups of functions, such as layers, in each state.

        Parameters
        ----------
        kpts : array [K, 3]
        groups : sequence of indices of functions

        Returns
        -------
        energies : array [K, W], eV
        weights : array [K, W, len(groups)]
        """

        def both(own):
            energies, weights = bands.projections(self.bloch, own, groups, device=self.device)
            return np.concatenate([energies[..., None], weights], axis=-1)

        found = processes.of_rows(both, check_kpts(kpts))
        return found[..., 0], found[..., 1:]

    def band_structure(
        self,
        path: str | BandPath | None = None,
        *,
        n_bands: int | None = None,
        window: Sequence[float] | None = None,
        npoints: int = 100,
        reference: float = 0.0,
    ) -> BandStructure:
        """Make ase's BandStructure along a path.

        Parameters
        ----------
        path : str such as "GKMG" or "GK,MG", or ase BandPath
            Default: ASE's choice for this cell and the directions in which functions are coupled by more than 1 µeV.
        n_bands, window
            As in ``eigenvalues``.
        npoints : int
            Where path is not a BandPath.
        reference : float, eV
            The zero of plots, e.g. the Fermi level.

        Raises
        ------
        ValueError
            For special points that the cell lacks, whose message lists its special points, and for too few points.
        """
        path = band_path(path, cell=self.cell, pbc=self._coupled(), npoints=npoints)
        energies = self.eigenvalues(path.kpts, n_bands=n_bands, window=window)
        return BandStructure(path, energies[None], reference=reference)


def _finite(name, values, shape, needed, kind=float):
    """Copy ``values`` to a new array; ValueError for a wrong shape, NaN and infinity."""
    try:
        found = np.array(values, dtype=kind)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got {type(values).__name__} that is no array of numbers, need {needed}") from None
    if found.shape != shape:
        raise ValueError(f"{name}: got shape {list(found.shape)}, need {needed}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: got NaN or infinity, need {needed}")
    return found


def _in_order(each, r_vectors):
    """A(R) of a BlochSum for given lattice vectors, zero for vectors that it lacks."""
    matrices = {tuple(r): matrix for r, matrix in zip(each.r_vectors.tolist(), each.toarray())}
    zero = np.zeros((each.size, each.size))
    return np.array([matrices.get(tuple(r), zero) for r in r_vectors.tolist()])
