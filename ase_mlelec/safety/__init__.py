"""Protection of a model outside of its training data: a repulsive core, and the range of the training data.

Both are parts of the model file. The core keeps atoms apart where they are closer, or more crowded, than in the training
data. The range tells which structures are unlike the training data.
"""

from ase_mlelec.safety.repulsive_core import OUTER, RepulsiveCore, shortest_distances
from ase_mlelec.safety.training_range import TrainingRange

__all__ = ["OUTER", "RepulsiveCore", "TrainingRange", "shortest_distances"]
