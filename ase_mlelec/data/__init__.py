"""Data sets to train and test with: labeled structures, snapshots of an LDOS, Hamiltonians."""
