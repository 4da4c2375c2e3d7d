"""The Hamiltonian between functions of atoms in layered crystals, by physics: one file for each kind of term."""
