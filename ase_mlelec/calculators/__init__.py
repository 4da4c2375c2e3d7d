"""ASE calculators; the public names are in ase_mlelec."""
