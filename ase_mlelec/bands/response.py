"""Sums over k-points: Fermi level, densities of states, conductivity, optical pairs of levels, Berry curvature.

Processes that work together (see ase_mlelec.processes) share the k-points.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import processes
from ase_mlelec.bands.interior import all_eigenvalues
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.physics import kernel_polynomial, levels, transport
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
        eigenvalues = all_eigenvalues(self.bloch, kpts, self.device)
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
        eigenvalues = all_eigenvalues(self.bloch, kpts, self.device)
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


_WITHOUT_POSITIONS = "internal terms only: no <0|r|R>"


class Response(OnMeshes):
    """Mix-in of WannierHamiltonian: response of its electrons to fields."""

    @formerly_positional("kmesh", "temperature", "relaxation_time")
    def conductivity(
        self, fermi_level: float, *, kmesh: Sequence, temperature: float, relaxation_time: float
    ) -> NDArray:
        """Compute the conductivity of the Boltzmann equation with one relaxation time.

        Parameters
        ----------
        fermi_level : float, eV
        kmesh : three ints, or (kpts, weights)
        temperature : float, K
        relaxation_time : float, fs

        Returns
        -------
        array [3, 3], S/m
        """
        kpts, weights = _own(*self.mesh(kmesh))
        drude = transport.drude_weight(
            self.bloch,
            self.cell,
            kpts,
            weights,
            fermi_level,
            temperature,
            degeneracy=self.spin_degeneracy,
            device=self.device,
        )
        return transport.conductivity(processes.summed(drude), relaxation_time)

    @formerly_positional("fermi_level", "kmesh", "temperature", "width")
    def joint_dos(
        self, energies: ArrayLike, *, fermi_level: float, kmesh: Sequence, temperature: float, width: float = 0.1
    ) -> NDArray:
        """Compute the joint density of states: pairs of filled and empty states at the same k by energy difference.

        Parameters
        ----------
        energies : array [S], eV
            Energy differences.
        fermi_level : float, eV
        kmesh : three ints, or (kpts, weights)
        temperature : float, K
        width : float, eV
            Width of the Gaussians exp(-(x/width)²).

        Returns
        -------
        array [S], 1/eV
        """
        kpts, weights = self.mesh(kmesh)
        eigenvalues = all_eigenvalues(self.bloch, kpts, self.device)
        return transport.joint_density_of_states(
            energies, eigenvalues, weights, fermi_level, temperature, width, degeneracy=self.spin_degeneracy
        )

    @property
    def berry_terms(self) -> str:
        """Terms in Berry curvature and Hall conductivity: "all terms", or "internal terms only: no ``<0|r|R>``"."""
        return _WITHOUT_POSITIONS if self.position_blochs is None else "all terms"

    def berry_curvature(self, kpts: ArrayLike) -> NDArray:
        """Compute the Berry curvature of every band.

        Without <0|r|R> it has internal terms only; see berry_terms. It is undefined for degenerate states.

        Returns
        -------
        array [K, W, 3], Å^2
            The axial vector (yz, zx, xy).
        """
        return processes.of_rows(
            lambda own: transport.berry_curvature(
                self.bloch, self.cell, own, positions=self.position_blochs, device=self.device
            )[1],
            np.asarray(kpts, dtype=float),
        )

    @formerly_positional("kmesh", "temperature")
    def hall_conductivity(self, fermi_level: float, *, kmesh: Sequence, temperature: float) -> NDArray:
        """Compute the intrinsic anomalous Hall conductivity.

        Without <0|r|R> it has internal terms only, which is exact for an insulator; see berry_terms.

        Parameters
        ----------
        fermi_level : float, eV
        kmesh : three ints, or (kpts, weights)
        temperature : float, K

        Returns
        -------
        array [3], S/m
            The axial vector (σ_yz, σ_zx, σ_xy).
        """
        if len(kmesh) == 2:
            kpts, weights = _own(*self.mesh(kmesh))
        else:  # all of the mesh: without magnetism Berry curvature is odd in k
            whole = monkhorst_pack(kmesh)
            kpts, weights = _own(whole, np.full(len(whole), 1 / len(whole)))
        hall = transport.hall_conductivity(
            self.bloch,
            self.cell,
            kpts,
            weights,
            fermi_level,
            temperature,
            degeneracy=self.spin_degeneracy,
            positions=self.position_blochs,
            device=self.device,
        )
        return processes.summed(hall)


def _own(kpts, weights):
    """The share of this process of the points and weights of a mesh."""
    return kpts[processes.rank() :: processes.world()], weights[processes.rank() :: processes.world()]
