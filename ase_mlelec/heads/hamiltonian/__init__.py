"""Head of tight-binding Hamiltonians of layered crystals; one file for each kind of matrix element."""
