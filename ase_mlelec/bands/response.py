"""Response of a Wannier Hamiltonian: conductivity, joint density of states and Berry curvature."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.bands.meshes import OnMeshes
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.physics import bands, transport
from ase_mlelec.physics.kmesh import monkhorst_pack

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
        kpts, weights = self.mesh(kmesh)
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
        return transport.conductivity(drude, relaxation_time)

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
        eigenvalues = bands.eigenvalues(self.bloch, kpts, device=self.device)
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
        return transport.berry_curvature(
            self.bloch, self.cell, kpts, positions=self.position_blochs, device=self.device
        )[1]

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
        kpts, weights = self.mesh(kmesh) if len(kmesh) == 2 else (monkhorst_pack(kmesh), None)
        return transport.hall_conductivity(
            self.bloch,
            self.cell,
            np.asarray(kpts),
            weights,
            fermi_level,
            temperature,
            degeneracy=self.spin_degeneracy,
            positions=self.position_blochs,
            device=self.device,
        )
