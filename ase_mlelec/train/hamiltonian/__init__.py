"""Training of tight-binding Hamiltonians between Wannier functions."""
