"""What protects a model outside of its training data: a repulsive core, and the ranges of what it has seen.

Both are parts of the model file. The core keeps atoms from falling into each other where a net or a polynomial has
never seen them so close, or so many; the ranges tell which structures are unlike those of the training.
"""

from ase_mlelec.safety.distances import shortest_distances
from ase_mlelec.safety.repulsive_core import OUTER, RepulsiveCore
from ase_mlelec.safety.training_range import TrainingRange

__all__ = ["OUTER", "RepulsiveCore", "TrainingRange", "shortest_distances"]
