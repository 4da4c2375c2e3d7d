"""The only neighbor list, and its reuse between steps of a run."""

from ase_mlelec.edges.edges import EdgeCache, Edges, connect
from ase_mlelec.edges.pairs import MOST_NEIGHBORS, check_density, find_center_pairs, find_pairs, has_boxes

__all__ = [
    "MOST_NEIGHBORS",
    "EdgeCache",
    "Edges",
    "check_density",
    "connect",
    "find_center_pairs",
    "find_pairs",
    "has_boxes",
]
