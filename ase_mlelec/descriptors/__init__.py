"""Descriptors: edges -> features of every centre, invariant under rotation and permutation."""

from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.descriptors.bispectrum import Bispectrum
from ase_mlelec.descriptors.deep_potential import DeepPotSE
from ase_mlelec.descriptors.local_frame import LocalFrame
from ase_mlelec.descriptors.power_spectrum import PowerSpectrum

__all__ = ["Bispectrum", "DeepPotSE", "Descriptor", "Environment", "LocalFrame", "PowerSpectrum"]
