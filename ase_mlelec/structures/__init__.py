"""Layered structures: assignment of atoms to layers, and commensurate cells of twisted bilayers."""

from ase_mlelec.structures.layers import formula_of, layer_areas, layers
from ase_mlelec.structures.twist import Coincidence, coincidences, commensurate, twisted_bilayer

__all__ = ["Coincidence", "coincidences", "commensurate", "formula_of", "layer_areas", "layers", "twisted_bilayer"]
