"""Runs of DFT programs as data sets: files of a run, spectra of its bands, LDOS snapshots, Wannier Hamiltonians."""
