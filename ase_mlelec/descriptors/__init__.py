"""Descriptors: maps from edges to features of every center, invariant under rotation and permutation."""

from ase_mlelec.deprecated import former_names
from ase_mlelec.descriptors.ace import ACE
from ase_mlelec.descriptors.ace.former import from_power_spectrum  # noqa: F401
from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.descriptors.bispectrum import Bispectrum
from ase_mlelec.descriptors.deep_pot import DeepPotSE
from ase_mlelec.descriptors.deep_pot_local_frame import DeepPotLocalFrame
from ase_mlelec.descriptors.layer_moments import LayerMoments
from ase_mlelec.descriptors.layer_moments.former import from_local_frame  # noqa: F401

__all__ = ["ACE", "Bispectrum", "DeepPotLocalFrame", "DeepPotSE", "Descriptor", "Environment", "LayerMoments"]
__getattr__ = former_names(__name__, LocalFrame="from_local_frame", PowerSpectrum="from_power_spectrum")
