"""Sums over meshes of k-points: Fermi level and density of states of a Wannier Hamiltonian."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.physics import bands, kernel_polynomial, levels
from ase_mlelec.physics.bloch import BlochSum, check_kpts
from ase_mlelec.physics.kernel_polynomial import KernelPolynomialDOS
from ase_mlelec.physics.kmesh import monkhorst_pack, time_reversal_pairs


class OnMeshes:
    """Mix-in of WannierHamiltonian: quantities that are sums over k-points."""

    bloch: BlochSum
    cell: NDArray
    position_blochs: list[BlochSum] | None
    spin_degeneracy: int
    device: str | torch.device

    def mesh(self, kmesh: Sequence) -> tuple[NDArray, NDArray]:
        """Make k-points [K, 3] and weights [K] of a mesh of three ints; where H(R) is real, E(-k) = E(k) halves them.

        A pair (kpts, weights) is returned unchanged.
        """
        if len(kmesh) == 2:
            kpts, weights = check_kpts(kmesh[0]), np.asarray(kmesh[1], dtype=float)
            if weights.shape != (len(kpts),) or abs(weights.sum() - 1) > 1e-8:
                raise ValueError(
                    f"kmesh: got weights of shape {list(weights.shape)} and sum {weights.sum():g}, need "
                    f"{len(kpts)} that add up to 1"
                )
            return kpts, weights
        if self.bloch.is_real:
            return time_reversal_pairs(kmesh)
        kpts = monkhorst_pack(kmesh)
        return kpts, np.full(len(kpts), 1 / len(kpts))

    def fermi_level(self, n_electrons: float, kmesh: Sequence, temperature: float) -> float:
        """Find the Fermi level at which the bands hold n_electrons per cell.

        Parameters
        ----------
        n_electrons : float
        kmesh : three ints (Gamma-centered), or (kpts, weights) as physics.kmesh.irreducible gives them
        temperature : float, K
            0 is the limit, mid-gap in an insulator.

        Returns
        -------
        float, eV

        Raises
        ------
        ValueError
            For more electrons than the bands hold.
        """
        kpts, weights = self.mesh(kmesh)
        eigenvalues = bands.eigenvalues(self.bloch, kpts, device=self.device)
        return levels.fermi_level(eigenvalues, weights, n_electrons, temperature, degeneracy=self.spin_degeneracy)

    @formerly_positional("kmesh", "width")
    def dos(self, energies: ArrayLike, *, kmesh: Sequence, width: float = 0.1) -> NDArray:
        """Compute the density of states, with spin degeneracy, from all eigenvalues on a mesh.

        Parameters
        ----------
        energies : array [S], eV
        kmesh : three ints, or (kpts, weights)
        width : float, eV
            Width of the Gaussians exp(-(x/width)²).

        Returns
        -------
        array [S], states/eV
            Its integral is spin_degeneracy W.
        """
        kpts, weights = self.mesh(kmesh)
        eigenvalues = bands.eigenvalues(self.bloch, kpts, device=self.device)
        return levels.density_of_states(energies, eigenvalues, weights, width, degeneracy=self.spin_degeneracy)

    @formerly_positional("k", "n_moments", "n_vectors", "seed")
    def kernel_polynomial_dos(
        self,
        energies: ArrayLike,
        *,
        k: Sequence[float] = (0, 0, 0),
        n_moments: int = 512,
        n_vectors: int = 16,
        seed: int = 0,
    ) -> KernelPolynomialDOS:
        """Estimate the density of states of a large cell at one k-point without eigenvalues.

        Parameters
        ----------
        energies : array [S], eV
        k : array [3]
        n_moments, n_vectors, seed : int
            See physics.kernel_polynomial.

        Returns
        -------
        KernelPolynomialDOS
            dos, error: arrays [S], states/eV with spin degeneracy.
        """
        matrix = self.bloch.sparse(check_kpts([k])[0])
        found = kernel_polynomial.kernel_polynomial_dos(
            matrix, energies, n_moments=n_moments, n_vectors=n_vectors, seed=seed
        )
        return KernelPolynomialDOS(*(self.spin_degeneracy * array for array in found))
