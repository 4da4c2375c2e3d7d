"""Data sets for training and tests: labeled structures, LDOS snapshots, Hamiltonians."""
