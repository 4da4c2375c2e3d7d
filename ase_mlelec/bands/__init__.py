"""Electronic bands from Hamiltonians of Wannier functions."""

from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian

__all__ = ["WannierHamiltonian"]
