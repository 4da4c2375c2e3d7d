"""Training of Hamiltonians of Wannier functions."""
