"""Descriptors: edges -> features of every centre, invariant under rotation and permutation."""

from ase_mlelec.deprecated import former_names
from ase_mlelec.descriptors.ace import ACE
from ase_mlelec.descriptors.ace.former import from_power_spectrum  # noqa: F401
from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.descriptors.bispectrum import Bispectrum
from ase_mlelec.descriptors.deep_pot import DeepPotSE
from ase_mlelec.descriptors.local_frame import LocalFrame

__all__ = ["ACE", "Bispectrum", "DeepPotSE", "Descriptor", "Environment", "LocalFrame"]
__getattr__ = former_names(__name__, PowerSpectrum="from_power_spectrum")
