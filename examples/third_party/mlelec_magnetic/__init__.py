"""Magnetic moments: an example of a package for ase-mlelec.  Its modules are imported where they are needed."""
