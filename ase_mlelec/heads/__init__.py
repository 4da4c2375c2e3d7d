"""Heads: maps from environments to a physical quantity of every center."""

from ase_mlelec.deprecated import former_names
from ase_mlelec.heads.base import Blocks, Head, HeadOfPairs
from ase_mlelec.heads.hamiltonian.blocks import HamiltonianHead
from ase_mlelec.heads.scalar import ScalarHead
from ase_mlelec.heads.spectrum import LDOSHead, SpectrumHead
from ase_mlelec.heads.vector import TensorHead, VectorHead
from ase_mlelec.physics.energy_zero import EnergyZero
from ase_mlelec.quantities import HEADS

__all__ = [
    "Blocks",
    "EnergyZero",
    "HamiltonianHead",
    "Head",
    "HeadOfPairs",
    "LDOSHead",
    "ScalarHead",
    "SpectrumHead",
    "TensorHead",
    "VectorHead",
]

HEADS.update(
    (head.quantity, head) for head in (ScalarHead, SpectrumHead, VectorHead, TensorHead, LDOSHead, HamiltonianHead)
)
__getattr__ = former_names(__name__, PairHead="HamiltonianHead")
