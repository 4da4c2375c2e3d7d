"""Data sets to train and test with: labelled structures, snapshots of an LDOS, Hamiltonians."""
