"""Training of tight-binding Hamiltonians between Wannier functions."""

from ase_mlelec.deprecated import former_names

__getattr__ = former_names(
    __name__,
    compared_elements="train.hamiltonian.errors:compared_elements",
    fit_hamiltonian="train.hamiltonian.descent:fit_hamiltonian",
    frame_functions="train.hamiltonian.items:frame_functions",
    hamiltonian_errors="train.hamiltonian.errors:hamiltonian_errors",
)
