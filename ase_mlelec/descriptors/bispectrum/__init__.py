"""SNAP bispectrum components of atoms, points in space and grids."""

from ase_mlelec.descriptors.bispectrum.descriptor import Bispectrum, grid_bispectrum, radial_sums
from ase_mlelec.descriptors.bispectrum.grid import GridChunk

__all__ = ["Bispectrum", "GridChunk", "grid_bispectrum", "radial_sums"]
