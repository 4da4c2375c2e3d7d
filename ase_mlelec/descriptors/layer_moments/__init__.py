"""Descriptor of layered crystals: frames of layers, and moments of environments and pairs of atoms in these frames."""

from ase_mlelec.descriptors.layer_moments.descriptor import LayerMoments
from ase_mlelec.descriptors.layer_moments.frames import LayerFrames, find_symmetry, layer_frames
from ase_mlelec.descriptors.layer_moments.geometry import Geometry, Layers

__all__ = ["Geometry", "LayerFrames", "LayerMoments", "Layers", "find_symmetry", "layer_frames"]
